package up

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// dialWebSocket connects as a page of an origin does, or as a program that is no browser
// when origin is "".
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
		ours    bool // whether a page of the WebSocket's own origin may connect
		app     bool // whether a page of https://app.example may connect
		other   bool // whether a page of another origin may connect
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
					t.Errorf("connect from a page of %q: %v, want allowed: %v", origin, err, allowed)
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
		t.Errorf("the address after a restart is %s, want %s as before", after, before)
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
			t.Errorf("address %s, origins %q: %v, want a usage error", tt.addr, tt.origins, err)
		}
	}
	for _, addr := range []string{"127.0.0.1:9222", "[::1]:9222", "localhost:9222", ""} {
		if _, err := webSocketOptions(addr, ""); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
