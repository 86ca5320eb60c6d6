// Package connection says how a program connects to NATS: addresses,
// credentials and certificates, as flags. Every secret is the content of a file,
// such as of a Kubernetes Secret, so that it is neither in the arguments of a
// process nor in its environment. Files are read again for each connection:
// a changed secret needs no restart.
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

// WaitingPeriod is how often a program that waits for NATS says so again, while
// the reason stays the same.
const WaitingPeriod = 10 * time.Second

// Config is how to connect to NATS. The zero value is [nats.DefaultURL] without
// credentials. At most one of User, TokenFile, CredsFile and NKeyFile is set.
type Config struct {
	// URL is the address of a server, or those of several with commas.
	URL string
	// User is a user name, whose password is in PasswordFile.
	User         string
	PasswordFile string
	TokenFile    string
	// CredsFile has a JWT and its seed, as nsc writes it.
	CredsFile string
	// NKeyFile has the seed of a user.
	NKeyFile string
	// CAFile has the certificates of the authorities that sign the server's, in
	// PEM. Empty is for those of the system.
	CAFile string
	// CertFile and KeyFile are a client certificate, in PEM.
	CertFile string
	KeyFile  string
}

// Register makes flags of the configuration. The default address is that of
// defaultURL, and purpose ends its description.
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
// error is one that waiting does not mend, and names the flag.
func (c Config) Options() ([]nats.Option, error) {
	if _, err := c.addresses(); err != nil {
		return nil, err
	}
	opts, err := c.credentials()
	if err != nil {
		return nil, err
	}
	// The server is not left for good when it rejects the credentials: those of
	// the server and of the files do not change at the same time.
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
	for _, opt := range opts { // reads the certificates
		if err := opt(&nats.Options{}); err != nil {
			return nil, fmt.Errorf("use --nats-ca, --nats-cert and --nats-key: %w", err)
		}
	}
	return opts, nil
}

// credentials returns the option of the credentials, or none.
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
			password, _ = readSecret("--nats-password-file", c.PasswordFile) // an empty one is rejected, and tried again
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

// readSecret returns the content of a file without the end of its line.
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
	if errors.Is(err, nats.ErrNoServers) { // the client says nothing else of it
		err = fmt.Errorf("connection refused: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", c.Redacted(), err)
	}
	return nc, nil
}

func (c Config) servers() string { return cmp.Or(c.URL, nats.DefaultURL) }

// addresses parses the addresses. The error has nothing of them: one can have a
// password.
func (c Config) addresses() ([]*url.URL, error) {
	var out []*url.URL
	for i, address := range strings.Split(c.servers(), ",") {
		address = strings.TrimSpace(address)
		if !strings.Contains(address, "://") {
			address = "nats://" + address
		}
		u, err := url.Parse(address)
		if err != nil { // it quotes the address
			return nil, fmt.Errorf("--nats: address %d is no URL; a password in it is percent-encoded", i+1)
		}
		out = append(out, u)
	}
	return out, nil
}

// Redacted returns the addresses for a log: a password or token in them is xxxxx.
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

// Waiting decides what a program says while it cannot connect. It is not safe
// for concurrent use.
type Waiting struct {
	reason string
	said   time.Time
}

// ShouldSay reports whether err, which happened now, is to be said: the first
// one, another one than that before, and the same one every [WaitingPeriod].
func (w *Waiting) ShouldSay(err error, now time.Time) bool {
	if err.Error() == w.reason && now.Sub(w.said) < WaitingPeriod {
		return false
	}
	w.reason, w.said = err.Error(), now
	return true
}
