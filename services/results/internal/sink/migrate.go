package sink

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
)

// migrations has a file for each version of the tables, sorted by name. Files are never
// edited: a change of the tables is a new file.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the advisory lock of a migration, so that replicas that start at the
// same time wait for each other. The number is that of tern, which version 0.1.0 used.
const migrationLock = int64(9628173550095224)

// migrate updates the tables. The table sightmesh_version has one row with the number of
// applied migrations. migrate applies all missing migrations in one transaction.
func migrate(ctx context.Context, conn *pgx.Conn) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		version, err := lockVersion(ctx, tx)
		if err != nil {
			return err
		}
		for ; version < len(files); version++ {
			file := files[version]
			sql, err := migrations.ReadFile(file)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, string(sql)); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if _, err := tx.Exec(ctx, "update public.sightmesh_version set version = $1", version+1); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}

// lockVersion waits until no other replica migrates, and returns the number of applied
// migrations. It holds the lock until tx ends.
func lockVersion(ctx context.Context, tx pgx.Tx) (version int, err error) {
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", migrationLock); err != nil {
		return 0, fmt.Errorf("lock: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		create table if not exists public.sightmesh_version (version int4 not null);
		insert into public.sightmesh_version (version)
			select 0 where not exists (select from public.sightmesh_version)`); err != nil {
		return 0, fmt.Errorf("create the table of versions: %w", err)
	}
	if err := tx.QueryRow(ctx, "select version from public.sightmesh_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("read the version: %w", err)
	}
	return version, nil
}
