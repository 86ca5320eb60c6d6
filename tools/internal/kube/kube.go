package kube

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Config is the configuration of a [Cluster]. Every field is required.
type Config struct {
	// Programs is the folder of the programs that make cluster builds.
	Programs string
	// State is an empty folder for data, sockets and logs.
	State string
	// CGroup is the path of a group, in every hierarchy, for the pods.
	CGroup string
	// CPUs is the maximum number of CPUs of the node.
	CPUs int
}

// A Cluster is a running Kubernetes. Kubectl and Helm are safe for concurrent use by
// multiple goroutines; its other methods are not.
type Cluster struct {
	config    Config
	processes []*process // in the order in which they were started
}

const (
	nodeName    = "node"
	nodeAddress = "10.78.0.1"
)

//go:embed files
var files embed.FS

// Start starts a cluster and waits until its node is ready. Pods can be started
// once [Cluster.Import] has imported their images.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	c := &Cluster{config: config}
	for _, start := range []func(context.Context) error{
		c.makeNetwork, c.writeFiles, c.startControlPlane, c.startNode,
	} {
		if err := start(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("start Kubernetes: %w", err), c.Close())
		}
	}
	return c, nil
}

// Close stops the processes, the last one first. Containers end with the process
// namespace.
func (c *Cluster) Close() error {
	var failed []error
	for _, p := range slices.Backward(c.processes) {
		failed = append(failed, p.stop())
	}
	c.processes = nil
	return errors.Join(failed...)
}

// makeNetwork sets the addresses of the node. A default route without a target is
// needed, because packets to Services are routed before kube-proxy changes them.
func (c *Cluster) makeNetwork(ctx context.Context) error {
	links, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	if len(links) != 1 {
		return fmt.Errorf("the network namespace has %d interfaces, want only lo: run make cluster-test", len(links))
	}
	for _, args := range []string{
		"link set lo up",
		"link add node type bridge",
		"addr add " + nodeAddress + "/24 dev node",
		"link set node up",
		"route add default via 10.78.0.254 dev node",
	} {
		if _, err := execute(ctx, nil, "ip", strings.Fields(args)...); err != nil {
			return fmt.Errorf("make the network of the node: %w", err)
		}
	}
	return nil
}

// writeFiles writes the certificates and the configuration of each program.
func (c *Cluster) writeFiles(context.Context) error {
	ca, err := newAuthority(c.file("pki"))
	if err != nil {
		return err
	}
	token := rand.Text()
	for _, err := range []error{
		ca.issueServer("apiserver", []string{"kubernetes.default.svc", "localhost"}, "127.0.0.1", nodeAddress, "10.96.0.1"),
		ca.issueServer("service-accounts", nil), // only its key is used
		ca.issueClient("front-proxy-client"),
		ca.issueServer("tls", []string{"localhost", "keda-metrics-apiserver.keda.svc"}, "127.0.0.1", nodeAddress),
		os.WriteFile(c.file("tokens.csv"), []byte(token+",admin,admin,system:masters\n"), 0o600),
		os.MkdirAll(c.file("cni"), 0o700),
	} {
		if err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	replace := strings.NewReplacer("STATE", c.config.State, "NODE", nodeAddress, "TOKEN", token, "CGROUP", c.config.CGroup,
		"RESERVED", strconv.Itoa(max(0, runtime.NumCPU()-c.config.CPUs)))
	return fs.WalkDir(files, "files", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		to := c.file(entry.Name())
		if filepath.Ext(path) == ".conflist" {
			to = c.file(filepath.Join("cni", entry.Name()))
		}
		return os.WriteFile(to, []byte(replace.Replace(string(text))), 0o600)
	})
}

func (c *Cluster) startControlPlane(ctx context.Context) error {
	etcd, err := c.run("etcd", nil, c.program("etcd"), "--data-dir="+c.file("etcd"), "--unsafe-no-fsync")
	if err != nil {
		return err
	}
	if err := etcd.await(ctx, isAnswering("http://127.0.0.1:2379/health")); err != nil {
		return err
	}
	pki := c.file("pki") + "/"
	apiserver, err := c.run("kube-apiserver", nil, c.program("kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379", "--advertise-address="+nodeAddress, "--service-cluster-ip-range=10.96.0.0/16",
		"--tls-cert-file="+pki+"apiserver.crt", "--tls-private-key-file="+pki+"apiserver.key",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+pki+"service-accounts.key",
		"--service-account-signing-key-file="+pki+"service-accounts.key",
		"--token-auth-file="+c.file("tokens.csv"), "--authorization-mode=Node,RBAC", "--allow-privileged=true",
		"--kubelet-preferred-address-types=InternalIP", "--enable-aggregator-routing=true",
		"--requestheader-client-ca-file="+pki+"ca.crt", "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User", "--proxy-client-cert-file="+pki+"front-proxy-client.crt",
		"--proxy-client-key-file="+pki+"front-proxy-client.key")
	if err != nil {
		return err
	}
	if err := apiserver.await(ctx, func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "get", "--raw=/readyz")
		return err
	}); err != nil {
		return err
	}
	kubeconfig := c.file("kubeconfig")
	asClient := []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1", "--leader-elect=false",
	}
	if err := c.Run("kube-controller-manager", nil, c.program("kube-controller-manager"), append(asClient,
		"--service-account-private-key-file="+pki+"service-accounts.key", "--root-ca-file="+pki+"ca.crt",
		"--use-service-account-credentials", "--cert-dir="+c.file("controller-manager"))...); err != nil {
		return err
	}
	if err := c.Run("kube-scheduler", nil, c.program("kube-scheduler"),
		append(asClient, "--cert-dir="+c.file("scheduler"))...); err != nil {
		return err
	}
	coredns, err := c.run("coredns", nil, c.program("coredns"), "-conf", c.file("Corefile"))
	if err != nil {
		return err
	}
	return coredns.await(ctx, isAnswering("http://127.0.0.1:8181/ready"))
}

func (c *Cluster) startNode(ctx context.Context) error {
	containerd, err := c.run("containerd", nil, "containerd", "--config", c.file("containerd.toml"))
	if err != nil {
		return err
	}
	if err := containerd.await(ctx, func(ctx context.Context) error {
		_, err := c.containers(ctx, "version")
		return err
	}); err != nil {
		return err
	}
	pause := c.file("pause.tar")
	if err := WriteImage(pause, "sightmesh.invalid/pause:1", c.program("pause")); err != nil {
		return err
	}
	if err := c.Import(ctx, pause); err != nil {
		return err
	}
	kubeconfig := c.file("kubeconfig")
	kubelet, err := c.run("kubelet", nil, c.program("kubelet"),
		"--config="+c.file("kubelet.yaml"), "--kubeconfig="+kubeconfig, "--hostname-override="+nodeName,
		"--root-dir="+c.file("kubelet"), "--cert-dir="+c.file("kubelet-certificates"),
		"--node-ip="+nodeAddress)
	if err != nil {
		return err
	}
	if err := c.Run("kube-proxy", nil, c.program("kube-proxy"),
		"--kubeconfig="+kubeconfig, "--hostname-override="+nodeName, "--proxy-mode=nftables",
		"--cluster-cidr=10.245.0.0/24", "--bind-address="+nodeAddress,
		"--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249",
		"--conntrack-max-per-core=0"); err != nil {
		return err
	}
	return kubelet.await(ctx, func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "wait", "--for=condition=Ready", "node/"+nodeName, "--timeout=5s")
		return err
	})
}

// isAnswering returns a check that an address responds with status 200.
func isAnswering(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s responds with %s", url, res.Status)
		}
		return nil
	}
}

// Import imports the images of an archive into the node.
func (c *Cluster) Import(ctx context.Context, archive string) error {
	_, err := c.containers(ctx, "images", "import", archive)
	return err
}

// Tag adds a name to an image of the node.
func (c *Cluster) Tag(ctx context.Context, image, name string) error {
	_, err := c.containers(ctx, "images", "tag", "docker.io/library/"+image, "docker.io/library/"+name)
	return err
}

func (c *Cluster) containers(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"--address", c.file("containerd.sock"), "--namespace", "k8s.io"}, args...)
	return execute(ctx, nil, "ctr", args...)
}

// task returns the container of a pod, and the ID of its first process.
func (c *Cluster) task(ctx context.Context, namespace, pod string) (container, process string, err error) {
	id, err := c.Kubectl(ctx, "get", "pod", pod, "--namespace="+namespace,
		"--output=jsonpath={.status.containerStatuses[0].containerID}")
	if err != nil {
		return "", "", fmt.Errorf("find pod %s: %w", pod, err)
	}
	tasks, err := c.containers(ctx, "tasks", "list")
	if err != nil {
		return "", "", fmt.Errorf("find pod %s: %w", pod, err)
	}
	for line := range strings.Lines(tasks) { // container, process ID, state
		if fields := strings.Fields(line); len(fields) == 3 && "containerd://"+fields[0] == id {
			return fields[0], fields[1], nil
		}
	}
	return "", "", fmt.Errorf("find pod %s: container %s has no process", pod, id)
}

// Dial opens a TCP connection from the network of a pod, and closes it.
func (c *Cluster) Dial(ctx context.Context, namespace, pod, address string) error {
	_, process, err := c.task(ctx, namespace, pod)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("dial from pod %s: %w", pod, err)
	}
	_, err = execute(ctx, nil, "nsenter", "--net=/proc/"+process+"/ns/net",
		"timeout", "2", "bash", "-c", "</dev/tcp/"+host+"/"+port)
	return err
}

// Kill kills the processes of a pod, as the loss of a node does, and deletes the pod,
// so that another pod starts.
func (c *Cluster) Kill(ctx context.Context, namespace, pod string) error {
	container, _, err := c.task(ctx, namespace, pod)
	if err != nil {
		return err
	}
	if _, err := c.containers(ctx, "tasks", "kill", "--all", "--signal=SIGKILL", container); err != nil {
		return fmt.Errorf("kill pod %s: %w", pod, err)
	}
	_, err = c.Kubectl(ctx, "delete", "pod", pod, "--namespace="+namespace, "--grace-period=0", "--force")
	return err
}

// LoadRules changes the rules of nftables of the node.
func (c *Cluster) LoadRules(ctx context.Context, rules string) error {
	_, err := execute(ctx, strings.NewReader(rules), "nft", "-f", "-")
	return err
}

// Kubectl runs kubectl and returns its standard output.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return execute(ctx, nil, c.program("kubectl"), append([]string{"--kubeconfig", c.file("kubeconfig")}, args...)...)
}

// FollowLogs writes the logs of running pods to w until stop is called.
func (c *Cluster) FollowLogs(ctx context.Context, w io.Writer, selector ...string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, c.program("kubectl"), append([]string{"--kubeconfig", c.file("kubeconfig"),
		"logs", "--follow", "--prefix", "--tail=0", "--all-containers", "--max-log-requests=50"}, selector...)...)
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("follow logs: %w", err)
	}
	return func() {
		cancel()
		_ = cmd.Wait() // stop killed it, or every pod has ended
	}, nil
}

// Apply creates or changes the objects of a YAML text.
func (c *Cluster) Apply(ctx context.Context, text string) error {
	_, err := execute(ctx, strings.NewReader(text), c.program("kubectl"), "--kubeconfig", c.file("kubeconfig"),
		"apply", "--server-side", "-f", "-")
	return err
}

// Helm runs Helm and returns its standard output.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	return execute(ctx, nil, c.program("helm"), append([]string{"--kubeconfig", c.file("kubeconfig")}, args...)...)
}

// execute runs a program to its end. The error contains its output.
func execute(ctx context.Context, stdin *strings.Reader, program string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	if stdin != nil {
		cmd.Stdin = stdin
	}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s",
			filepath.Base(program), strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String(), nil
}
