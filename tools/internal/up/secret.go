package up

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// callbackVariable is the environment variable with the secrets that sign callbacks.
// Other users can read the arguments of a process, but not its environment.
const callbackVariable = "SIGHTMESH_CALLBACK_SECRETS"

// callbackSecret gives the secret of the environment, or one that is kept in
// the folder and made the first time.
func callbackSecret(data string) (string, error) {
	if s := os.Getenv(callbackVariable); s != "" {
		return s, nil
	}
	path := filepath.Join(data, "callback-secret")
	b, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the secret of callbacks: %w", err)
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails
	secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
	if err := os.MkdirAll(data, 0o755); err != nil {
		return "", fmt.Errorf("keep the secret of callbacks: %w", err)
	}
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the secret of callbacks: %w", err)
	}
	return secret, nil
}
