package bus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// writeFile returns the path of a file with the content data.
func writeFile(t *testing.T, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// lines are those of a log, as they are written.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// await returns the next line that contains text.
func (l lines) await(t *testing.T, text string) string {
	t.Helper()
	timeout := time.After(testTimeout)
	for {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			t.Fatalf("the log has no line with %q", text)
		}
	}
}

func newLog() (*slog.Logger, lines) {
	l := make(lines, 1000)
	return slog.New(slog.NewJSONHandler(l, nil)), l
}

// newKey returns a new pair of keys and its public key.
func newKey(t *testing.T, create func() (nkeys.KeyPair, error)) (pair nkeys.KeyPair, public string) {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	return pair, public
}

// configureOperator makes a server one of an operator with one account, and returns
// the credentials file of a user of it.
func configureOperator(t *testing.T, o *server.Options) (credsFile string) {
	t.Helper()
	operator, operatorPublic := newKey(t, nkeys.CreateOperator)
	account, accountPublic := newKey(t, nkeys.CreateAccount)
	user, userPublic := newKey(t, nkeys.CreateUser)
	accountJWT, err := jwt.NewAccountClaims(accountPublic).Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	userJWT, err := jwt.NewUserClaims(userPublic).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(userJWT, seed)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(accountPublic, accountJWT); err != nil {
		t.Fatal(err)
	}
	o.JetStream = false // it needs limits in the account
	o.TrustedKeys, o.AccountResolver = []string{operatorPublic}, resolver
	return writeFile(t, creds)
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM of its certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	var certFile string
	a.cert, a.key, certFile, _ = a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.file = certFile
	return a
}

// sign returns a certificate from the template and its files. The authority
// without a certificate signs its own.
func (a *authority) sign(t *testing.T, template *x509.Certificate) (
	cert *x509.Certificate, key *ecdsa.PrivateKey, certFile, keyFile string,
) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile = writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyFile = writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	return cert, key, certFile, keyFile
}

// withTLS makes a server one with a certificate of a, which wants one of a from
// its clients.
func withTLS(t *testing.T, a *authority, o *server.Options) {
	t.Helper()
	_, _, certFile, keyFile := a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "nats"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	o.TLS = true
	o.TLSConfig = &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS12,
	}
}

// TestConnect_Credentials connects to servers that want credentials, without
// and with them.
func TestConnect_Credentials(t *testing.T) {
	t.Parallel()
	user, userPublic := newKey(t, nkeys.CreateUser)
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t)
	_, _, clientCert, clientKey := ca.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "detect"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	for name, tt := range map[string]struct {
		change func(t *testing.T, o *server.Options, cfg *connection.Config)
		reason string // without credentials
	}{
		"user and password": {func(t *testing.T, o *server.Options, cfg *connection.Config) {
			t.Helper()
			o.Username, o.Password = "mesh", "s3cret"
			cfg.User, cfg.PasswordFile = "mesh", writeFile(t, []byte("s3cret\n"))
		}, "Authorization Violation"},
		"token": {func(t *testing.T, o *server.Options, cfg *connection.Config) {
			t.Helper()
			o.Authorization = "s3cret"
			cfg.TokenFile = writeFile(t, []byte("s3cret\n"))
		}, "Authorization Violation"},
		"nkey": {func(t *testing.T, o *server.Options, cfg *connection.Config) {
			t.Helper()
			o.Nkeys = []*server.NkeyUser{{Nkey: userPublic}}
			cfg.NKeyFile = writeFile(t, seed)
		}, "Authorization Violation"},
		"creds": {func(t *testing.T, o *server.Options, cfg *connection.Config) {
			t.Helper()
			cfg.CredsFile = configureOperator(t, o)
		}, "Authorization Violation"},
		"certificates": {func(t *testing.T, o *server.Options, cfg *connection.Config) {
			t.Helper()
			withTLS(t, ca, o)
			cfg.CAFile, cfg.CertFile, cfg.KeyFile = ca.file, clientCert, clientKey
		}, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var cfg connection.Config
			s := bustest.StartEmptyWith(t, func(o *server.Options) { tt.change(t, o, &cfg) })
			cfg.URL = s.URL

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			log, written := newLog()
			done := make(chan error, 1)
			go func() {
				nc, err := Connect(ctx, connection.Config{URL: s.URL}, "detect", "one", log)
				if nc != nil {
					nc.Close()
				}
				done <- err
			}()
			line := written.await(t, "waiting for NATS")
			if !strings.Contains(line, tt.reason) {
				t.Errorf("without credentials the log says %q, want %q in it", line, tt.reason)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("without credentials: %v, want the end of the context", err)
			}

			nc, err := Connect(t.Context(), cfg, "detect", "one", newQuietLogger())
			if err != nil {
				t.Fatal(err)
			}
			if err := Drain(t.Context(), nc); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestConnect_ReadsAChangedPassword changes the password at the server first, and
// then in the file, while a service is connected.
func TestConnect_ReadsAChangedPassword(t *testing.T) {
	t.Parallel()
	s := bustest.StartEmptyWith(t, func(o *server.Options) { o.Username, o.Password = "mesh", "first" })
	cfg := connection.Config{URL: s.URL, User: "mesh", PasswordFile: writeFile(t, []byte("first"))}
	log, written := newLog()
	nc, err := Connect(t.Context(), cfg, "detect", "one", log)
	if err != nil {
		t.Fatal(err)
	}
	defer Drain(context.Background(), nc)

	s.RestartWith(t, func(o *server.Options) { o.Password = "second" })
	line := written.await(t, "waiting for NATS")
	if !strings.Contains(line, "authorization violation") {
		t.Errorf("the log says %q, want the reason", line)
	}
	if err := os.WriteFile(cfg.PasswordFile, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	written.await(t, "reconnected to NATS")
}

func TestConnect_LogsImmediatelyWhyItWaits(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	log, written := newLog()
	done := make(chan error, 1)
	go func() {
		_, err := Connect(ctx, connection.Config{URL: "nats://mesh:s3cret@127.0.0.1:1"}, "detect", "one", log)
		done <- err
	}()
	line := written.await(t, "waiting for NATS")
	cancel()
	<-done
	for _, want := range []string{"mesh:xxxxx@127.0.0.1:1", "connection refused"} {
		if !strings.Contains(line, want) {
			t.Errorf("the log says %q, want %q in it", line, want)
		}
	}
	if strings.Contains(line, "s3cret") {
		t.Errorf("the log has the password: %q", line)
	}
}
