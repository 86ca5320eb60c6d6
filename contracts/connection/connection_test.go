package connection

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write returns the path of a file with the content text.
func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestConfig_OptionsRejectsInvalidFields(t *testing.T) {
	t.Parallel()
	secret := write(t, "s3cret\n")
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"two credentials":     {Config{TokenFile: secret, CredsFile: secret}, "--nats-token-file and --nats-creds"},
		"user, no password":   {Config{User: "mesh"}, "--nats-password-file"},
		"password, no user":   {Config{PasswordFile: secret}, "--nats-user"},
		"password is missing": {Config{User: "mesh", PasswordFile: "/nowhere/p"}, "--nats-password-file: open /nowhere/p"},
		"password is empty":   {Config{User: "mesh", PasswordFile: write(t, "\n")}, "is empty"},
		"token is missing":    {Config{TokenFile: "/nowhere/t"}, "--nats-token-file: open /nowhere/t"},
		"creds are missing":   {Config{CredsFile: "/nowhere/c"}, "--nats-creds: open /nowhere/c"},
		"no seed":             {Config{NKeyFile: secret}, "--nats-nkey"},
		"CA is missing":       {Config{CAFile: "/nowhere/ca"}, "/nowhere/ca"},
		"CA is no PEM":        {Config{CAFile: secret}, "root certificate"},
		"certificate, no key": {Config{CertFile: secret}, "--nats-cert and --nats-key"},
		"no certificate":      {Config{CertFile: secret, KeyFile: secret}, "certificate"},
		"no URL":              {Config{URL: "nats://a,nats://mesh:s3cret@[b"}, "--nats: address 2"},
	} {
		_, err := tt.cfg.Options()
		if err == nil {
			t.Errorf("%s: it is accepted", name)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %q, want %q in it", name, err, tt.want)
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error has the secret: %q", name, err)
		}
	}
}

func TestConfig_RedactedHasNoSecret(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                          "nats://127.0.0.1:4222",
		"nats://a:4222,b:4222":      "nats://a:4222,nats://b:4222",
		"nats://mesh:s3cret@a:4222": "nats://mesh:xxxxx@a:4222",
		"tls://s3cret@a, tls://b":   "tls://xxxxx@a,tls://b",
		"nats://mesh:s3/cret@[a":    "an address that is no URL",
	} {
		if got := (Config{URL: in}).Redacted(); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestConfig_ConnectErrorHasNoSecret(t *testing.T) {
	t.Parallel()
	_, err := Config{URL: "nats://mesh:s3cret@127.0.0.1:1"}.Connect()
	if err == nil {
		t.Fatal("connected to a port that nothing listens on")
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the error has the password: %q", err)
	}
	if !strings.Contains(err.Error(), "mesh:xxxxx@127.0.0.1:1") {
		t.Errorf("the error does not name the address: %q", err)
	}
	if !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("the error does not say why: %q", err)
	}
}

func TestWaiting_LogsChangesImmediatelyAndRepeatsAfterAPeriod(t *testing.T) {
	t.Parallel()
	refused, rejected := errors.New("refused"), errors.New("rejected")
	begin := time.Now()
	var w Waiting
	for _, step := range []struct {
		name  string
		err   error
		after time.Duration
		want  bool
	}{
		{"the first", refused, 0, true},
		{"the same soon", refused, WaitingPeriod - 1, false},
		{"the same after a period", refused, WaitingPeriod, true},
		{"another one", rejected, WaitingPeriod + 1, true},
		{"that one soon", rejected, WaitingPeriod + 2, false},
	} {
		if got := w.ShouldLog(step.err, begin.Add(step.after)); got != step.want {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}
