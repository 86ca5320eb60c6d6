package up

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// dialWebSocket connects as a page of this origin does; "" is a program that is no browser.
func dialWebSocket(url, origin string) error {
	var opts []nats.Option
	if origin != "" {
		opts = append(opts, nats.WebSocketConnectionHeaders(http.Header{"Origin": {origin}}))
	}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return err
	}
	defer nc.Close()
	return nc.Flush()
}

func TestBroker_WebSocketOrigins(t *testing.T) {
	for name, tt := range map[string]struct {
		origins string
		ours    bool // a page of the WebSockets' own origin
		app     bool // a page of https://app.example
		other   bool
	}{
		"none": {"", true, false, false},
		"two":  {"https://app.example, https://b.example", false, true, false},
		"all":  {"*", true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			web, err := webSocketOptions("127.0.0.1:0", tt.origins)
			if err != nil {
				t.Fatal(err)
			}
			b, err := startBroker("127.0.0.1:0", web, t.TempDir(), maxStore, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer b.stop()
			url := b.webSocketURL()
			for origin, allowed := range map[string]bool{
				"": true, "http" + url[len("ws"):]: tt.ours, "https://app.example": tt.app,
				"http://app.example": tt.other, "https://app.example:8443": tt.other, "https://other.example": tt.other,
			} {
				if err := dialWebSocket(url, origin); (err == nil) != allowed {
					t.Errorf("a page of %q: %v, want it allowed: %v", origin, err, allowed)
				}
			}
		})
	}
}

func TestBroker_WebSocketAddressAfterRestart(t *testing.T) {
	web, err := webSocketOptions("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := startBroker("127.0.0.1:0", web, t.TempDir(), maxStore, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer b.stop()
	before := b.webSocketURL()
	if err := b.restart(); err != nil {
		t.Fatal(err)
	}
	if after := b.webSocketURL(); after != before {
		t.Errorf("after a restart they are at %s, and were at %s", after, before)
	}
	if err := dialWebSocket(before, ""); err != nil {
		t.Error(err)
	}
}

func TestWebSocketOptions_RejectsUnsafe(t *testing.T) {
	for _, tt := range []struct{ addr, origins string }{
		{"0.0.0.0:9222", ""}, {":9222", ""}, {"192.0.2.1:9222", ""}, {"mesh.example:9222", ""}, {"9222", ""},
		{"127.0.0.1:ws", ""}, {"127.0.0.1:9222", "*,https://app.example"},
	} {
		if _, err := webSocketOptions(tt.addr, tt.origins); exit.Status(err) != exit.Usage {
			t.Errorf("%s for %q: %v, want a usage error", tt.addr, tt.origins, err)
		}
	}
	for _, addr := range []string{"127.0.0.1:9222", "[::1]:9222", "localhost:9222", ""} {
		if _, err := webSocketOptions(addr, ""); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
