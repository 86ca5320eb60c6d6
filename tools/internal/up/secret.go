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

// webhookVariable is the environment variable with the secrets that sign webhooks.
// Other users can read the arguments of a process, but not its environment.
const webhookVariable = "SIGHTMESH_CALLBACK_SECRETS"

// webhookSecret returns the secrets of the environment, or else the secret in the data folder. The first call
// generates the secret of the folder.
func webhookSecret(data string) (string, error) {
	if s := os.Getenv(webhookVariable); s != "" {
		return s, nil
	}
	path := filepath.Join(data, "callback-secret")
	b, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the webhook secret: %w", err)
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails
	secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
	if err := os.MkdirAll(data, 0o755); err != nil {
		return "", fmt.Errorf("store the webhook secret: %w", err)
	}
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("store the webhook secret: %w", err)
	}
	return secret, nil
}
