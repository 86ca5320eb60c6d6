// Package connection configures how a program connects to NATS: addresses,
// credentials and certificates, as flags. Secrets are read from files, such as those
// of a Kubernetes Secret, so that they are not in the arguments or the environment of
// a process. The files are read again for each connection, so that a changed secret
// needs no restart.
package connection

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// WaitingPeriod is how often a program that waits for NATS logs the same reason.
const WaitingPeriod = 10 * time.Second

// Config is how to connect to NATS. The zero value is [nats.DefaultURL] without
// credentials. At most one of User, TokenFile, CredsFile and NKeyFile is set.
type Config struct {
	// URL is the address of a server, or a comma-separated list of addresses. Empty
	// means [nats.DefaultURL].
	URL string
	// User is a user name, whose password is in PasswordFile.
	User         string
	PasswordFile string
	TokenFile    string
	// CredsFile has a JWT and its seed, in the format of nsc.
	CredsFile string
	// NKeyFile has the seed of the NKey of a user.
	NKeyFile string
	// CAFile has the certificates of the authorities that sign the certificate of the
	// server, in PEM. Empty means those of the system.
	CAFile string
	// CertFile and KeyFile are a client certificate and its key, in PEM.
	CertFile string
	KeyFile  string
}

// Register defines the flags of the configuration. defaultURL is the default of
// --nats, and purpose is its usage text.
func (c *Config) Register(fs *flag.FlagSet, defaultURL, purpose string) {
	fs.StringVar(&c.URL, "nats", defaultURL, purpose)
	fs.StringVar(&c.User, "nats-user", "", "user `name` for NATS; needs --nats-password-file")
	fs.StringVar(&c.PasswordFile, "nats-password-file", "", "`file` with the password of --nats-user")
	fs.StringVar(&c.TokenFile, "nats-token-file", "", "`file` with the token for NATS")
	fs.StringVar(&c.CredsFile, "nats-creds", "", "credentials `file` for NATS, with a JWT and its seed")
	fs.StringVar(&c.NKeyFile, "nats-nkey", "", "`file` with the seed of the NKey for NATS")
	fs.StringVar(&c.CAFile, "nats-ca", "", "`file` with the CA certificates for NATS; empty: those of the system")
	fs.StringVar(&c.CertFile, "nats-cert", "", "`file` with the client certificate for NATS; needs --nats-key")
	fs.StringVar(&c.KeyFile, "nats-key", "", "`file` with the private key of --nats-cert")
}

// Options checks the configuration and returns it as options of nats.Connect. An
// error names the flag, and stays until the configuration is changed.
func (c Config) Options() ([]nats.Option, error) {
	if _, err := c.addresses(); err != nil {
		return nil, err
	}
	opts, err := c.credentials()
	if err != nil {
		return nil, err
	}
	// Connect again when the server rejects the credentials: those of the server and
	// those in the files do not change at the same time.
	opts = append(opts, nats.IgnoreAuthErrorAbort())
	if c.CAFile != "" {
		opts = append(opts, nats.RootCAs(c.CAFile))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("--nats-cert and --nats-key: want both or none")
	}
	if c.CertFile != "" {
		opts = append(opts, nats.ClientCert(c.CertFile, c.KeyFile))
	}
	for _, opt := range opts { // reads and checks the certificates
		if err := opt(&nats.Options{}); err != nil {
			return nil, fmt.Errorf("use --nats-ca, --nats-cert and --nats-key: %w", err)
		}
	}
	return opts, nil
}

// credentials returns the option of the credentials, if there are any.
func (c Config) credentials() ([]nats.Option, error) {
	var given []string
	for _, f := range []struct{ flag, value string }{
		{"--nats-user", c.User}, {"--nats-token-file", c.TokenFile},
		{"--nats-creds", c.CredsFile}, {"--nats-nkey", c.NKeyFile},
	} {
		if f.value != "" {
			given = append(given, f.flag)
		}
	}
	switch {
	case len(given) > 1:
		return nil, fmt.Errorf("%s: want one of them", strings.Join(given, " and "))
	case (c.User == "") != (c.PasswordFile == ""):
		return nil, errors.New("--nats-user and --nats-password-file: want both or none")
	case c.User != "":
		if _, err := readSecret("--nats-password-file", c.PasswordFile); err != nil {
			return nil, err
		}
		return []nats.Option{nats.UserInfoHandler(func() (name, password string) {
			// The server rejects an empty password, and the client retries.
			password, _ = readSecret("--nats-password-file", c.PasswordFile)
			return c.User, password
		})}, nil
	case c.TokenFile != "":
		if _, err := readSecret("--nats-token-file", c.TokenFile); err != nil {
			return nil, err
		}
		return []nats.Option{nats.TokenHandler(func() string {
			token, _ := readSecret("--nats-token-file", c.TokenFile) // as above
			return token
		})}, nil
	case c.CredsFile != "":
		if _, err := readSecret("--nats-creds", c.CredsFile); err != nil {
			return nil, err
		}
		return []nats.Option{nats.UserCredentials(c.CredsFile)}, nil
	case c.NKeyFile != "":
		opt, err := nats.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("read --nats-nkey: %w", err)
		}
		return []nats.Option{opt}, nil
	}
	return nil, nil
}

// readSecret returns the content of a file without the newline at its end.
func readSecret(flag, file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", flag, err)
	}
	secret := strings.TrimRight(string(data), "\r\n")
	if secret == "" {
		return "", fmt.Errorf("read %s: %s is empty", flag, file)
	}
	return secret, nil
}

// Connect returns a connection with the options of c and opts. It tries each
// address once.
func (c Config) Connect(opts ...nats.Option) (*nats.Conn, error) {
	own, err := c.Options()
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(c.servers(), append(own, opts...)...)
	if errors.Is(err, nats.ErrNoServers) { // the client gives no other reason
		err = fmt.Errorf("connection refused: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", c.Redacted(), err)
	}
	return nc, nil
}

func (c Config) servers() string { return cmp.Or(c.URL, nats.DefaultURL) }

// addresses parses the addresses. The error does not contain an address, because an
// address can contain a password.
func (c Config) addresses() ([]*url.URL, error) {
	var out []*url.URL
	for i, address := range strings.Split(c.servers(), ",") {
		address = strings.TrimSpace(address)
		if !strings.Contains(address, "://") {
			address = "nats://" + address
		}
		u, err := url.Parse(address)
		if err != nil { // err contains the address
			return nil, fmt.Errorf("--nats: address %d is not a URL; a password in it is percent-encoded", i+1)
		}
		out = append(out, u)
	}
	return out, nil
}

// Redacted returns the addresses for logs. Passwords and tokens are replaced by xxxxx.
func (c Config) Redacted() string {
	addresses, err := c.addresses()
	if err != nil {
		return "an address that is no URL"
	}
	var out []string
	for _, u := range addresses {
		if _, hasPassword := u.User.Password(); u.User != nil && !hasPassword { // a token
			u.User = url.User("xxxxx")
		}
		out = append(out, u.Redacted())
	}
	return strings.Join(out, ",")
}

// Waiting decides which errors a program logs while it cannot connect. It is not safe
// for concurrent use.
type Waiting struct {
	reason   string
	loggedAt time.Time
}

// ShouldLog reports whether err, which happened now, should be logged: the first
// error, an error that differs from the one before, and the same error once every
// [WaitingPeriod].
func (w *Waiting) ShouldLog(err error, now time.Time) bool {
	if err.Error() == w.reason && now.Sub(w.loggedAt) < WaitingPeriod {
		return false
	}
	w.reason, w.loggedAt = err.Error(), now
	return true
}
