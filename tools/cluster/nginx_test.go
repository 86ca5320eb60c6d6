//go:build cluster

package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"text/template"
	"time"

	"github.com/sightmesh/sightmesh/contracts/eventually"
)

// nginxAddress is where nginx listens, inside the network namespace.
const nginxAddress = "127.0.0.1:80"

// nginxConfig is the configuration that ingress-nginx generates for an Ingress with one
// rule and annotations.
var nginxConfig = template.Must(template.New("").Option("missingkey=error").Parse(`
daemon off;
user root;
pid {{.State}}/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path {{.State}}/nginx-bodies;
  proxy_temp_path {{.State}}/nginx-proxy;
  fastcgi_temp_path {{.State}}/nginx-fastcgi;
  uwsgi_temp_path {{.State}}/nginx-uwsgi;
  scgi_temp_path {{.State}}/nginx-scgi;
  map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
  server {
    listen {{.Listen}};
    server_name {{.Host}};
    client_max_body_size {{index .Annotations "nginx.ingress.kubernetes.io/proxy-body-size"}};
    location {{.Path}} {
      proxy_pass http://{{.Backend}};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_buffering off;
      proxy_request_buffering {{index .Annotations "nginx.ingress.kubernetes.io/proxy-request-buffering"}};
      proxy_read_timeout {{index .Annotations "nginx.ingress.kubernetes.io/proxy-read-timeout"}}s;
    }
  }
}
`))

// startNginx starts Debian's nginx with the settings of the Ingress of the release.
func (r release) startNginx(t *testing.T) {
	t.Helper()
	var ingress struct {
		Items []struct {
			Metadata struct{ Annotations map[string]string }
			Spec     struct {
				Rules []struct {
					Host string
					HTTP struct {
						Paths []struct {
							Path    string
							Backend struct {
								Service struct {
									Name string
									Port struct{ Name string }
								}
							}
						}
					}
				}
			}
		}
	}
	text := r.kubectl(t, "get", "ingresses", "--namespace="+r.namespace, "--output=json")
	if err := json.Unmarshal([]byte(text), &ingress); err != nil {
		t.Fatal(err)
	}
	switch {
	case len(ingress.Items) != 1:
		t.Fatalf("%d Ingresses, want 1: %+v", len(ingress.Items), ingress)
	case len(ingress.Items[0].Spec.Rules) != 1:
		t.Fatalf("the Ingress has %d rules, want 1: %+v", len(ingress.Items[0].Spec.Rules), ingress)
	case len(ingress.Items[0].Spec.Rules[0].HTTP.Paths) != 1:
		t.Fatalf("the rule has %d paths, want 1: %+v", len(ingress.Items[0].Spec.Rules[0].HTTP.Paths), ingress)
	}
	rule := ingress.Items[0].Spec.Rules[0]
	path := rule.HTTP.Paths[0]
	backend := r.kubectl(t, "get", "service", path.Backend.Service.Name, "--namespace="+r.namespace,
		`--output=jsonpath={.spec.clusterIP}:{.spec.ports[?(@.name=="`+path.Backend.Service.Port.Name+`")].port}`)
	state := os.Getenv(stateVariable)
	var config bytes.Buffer
	if err := nginxConfig.Execute(&config, map[string]any{
		"State": state, "Listen": nginxAddress, "Host": rule.Host, "Path": path.Path, "Backend": backend,
		"Annotations": ingress.Items[0].Metadata.Annotations,
	}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(state, "nginx.conf")
	if err := os.WriteFile(file, config.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.kube.Run("nginx", nil, "nginx", "-e", "stderr", "-c", file); err != nil {
		t.Fatal(err)
	}
	eventually.Succeeds(t, time.Minute, func() error {
		c, err := dialNginx(t.Context(), "tcp", "")
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// dialNginx connects to nginx and ignores the address.
func dialNginx(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, nginxAddress)
}

// pad returns a PNG file with a comment, so that the file has size bytes.
func pad(file []byte, size int) []byte {
	const endSize, overhead = 12, 12
	end := len(file) - endSize
	chunk := append([]byte("tEXtComment\x00"), bytes.Repeat([]byte("x"), size-len(file)-overhead-len("Comment\x00"))...)
	padded := binary.BigEndian.AppendUint32(slices.Clone(file[:end]), uint32(len(chunk)-len("tEXt")))
	padded = append(padded, chunk...)
	padded = binary.BigEndian.AppendUint32(padded, crc32.ChecksumIEEE(chunk))
	return append(padded, file[end:]...)
}
