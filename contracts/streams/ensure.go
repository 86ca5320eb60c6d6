package streams

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Update configures how [Ensure] changes existing streams.
type Update struct {
	// KeepStorage makes Config.Storage apply to the first set-up only: existing streams
	// keep their storage, and new ones get the same.
	KeepStorage bool
	// MaxStore limits the size of all streams together, in bytes. The limit of every
	// stream is lowered in proportion. 0 means no limit.
	MaxStore int64
	// Force allows changes that may delete messages or copies of them: fewer replicas,
	// shorter ages, a limit below the present size of a stream.
	Force bool
}

// MinStore is the smallest MaxStore. With it, several messages of the largest size
// fit into every queue.
const MinStore = 256 << 20

// PermanentError is an error of [Ensure] that another try returns again.
type PermanentError struct{ Err error }

// Error returns the text of the wrapped error.
func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap returns the wrapped error.
func (e *PermanentError) Unwrap() error { return e.Err }

func newPermanentError(format string, args ...any) error {
	return &PermanentError{Err: fmt.Errorf(format, args...)}
}

// Ensure creates the streams and consumers that are missing, and updates those that
// exist. It can be called again at any time.
//
// Replicas, ResultsAge, ReportsAge and MaxStore of 0 keep the present values of an
// existing stream. Limits that an operator has changed are kept too. The consumers of a
// pipeline that is not in cfg are kept, so that its queued messages are not lost;
// operators delete them by hand.
//
// Ensure returns a [*PermanentError] and changes nothing when the server does not meet
// the requirements of the mesh, or when a change needs Force.
//
// Each request to the server has the default timeout of js. Ensure makes two requests for
// each stream and each consumer.
func Ensure(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	ctx = requestContext{ctx}
	if err := checkServer(ctx, js); err != nil {
		return err
	}
	have, err := readExisting(ctx, js, cfg)
	if err != nil {
		return err
	}
	want, lowered, err := plan(cfg, have)
	if err != nil {
		return err
	}
	if len(lowered) > 0 && !cfg.Force {
		return newPermanentError("this can delete stored messages, and needs --force: %s", strings.Join(lowered, "; "))
	}
	for _, s := range want {
		store := js.CreateStream
		if have[s.Name] != nil {
			store = js.UpdateStream
		}
		if _, err := store(ctx, s); err != nil {
			return fmt.Errorf("ensure stream %s: %w", s.Name, explain(ctx, js, s, want, err))
		}
	}
	reply, err := replyOfVersion01(ctx, js)
	if err != nil {
		return err
	}
	for _, c := range Consumers(cfg) {
		if reply != nil && (c.Config.Durable == FollowConsumer || c.Config.Durable == NotifyConsumer) {
			c.Config.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
			c.Config.OptStartSeq = reply.AckFloor.Stream + 1
		}
		i := slices.IndexFunc(want, func(s jetstream.StreamConfig) bool { return s.Name == c.Stream })
		c.Config.Replicas = want[i].Replicas
		if err := ensureConsumer(ctx, js, c); err != nil {
			err = explain(ctx, js, want[i], want, err)
			return fmt.Errorf("ensure consumer %s of %s: %w", c.Config.Durable, c.Stream, err)
		}
	}
	return nil
}

// requestContext is a context without a deadline, which ends when its parent ends. A
// request with it has the default timeout of JetStream. With the deadline of the parent, a
// request whose reply is lost would use up the time of all requests after it.
type requestContext struct{ context.Context } //nolint:containedctx // it is a context

// Deadline implements [context.Context].
func (requestContext) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// readExisting returns the streams of the mesh that exist, by name.
func readExisting(ctx context.Context, js jetstream.JetStream, cfg Config) (map[string]*jetstream.StreamInfo, error) {
	have := map[string]*jetstream.StreamInfo{}
	for _, s := range Streams(cfg) {
		found, err := js.Stream(ctx, s.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read stream %s: %w", s.Name, err)
		}
		have[s.Name] = found.CachedInfo()
	}
	return have, nil
}

// plan merges cfg with the existing streams. It returns the configuration of every
// stream, and a description of each value that it lowers.
func plan(cfg Config, have map[string]*jetstream.StreamInfo) (
	want []jetstream.StreamConfig, lowered []string, err error,
) {
	given := cfg             // cfg is completed below
	for _, s := range have { // a new stream gets the values of the others
		if given.Replicas == 0 {
			cfg.Replicas = max(cfg.Replicas, s.Config.Replicas)
		}
		if given.KeepStorage {
			cfg.Storage = s.Config.Storage
		}
	}
	reasons := map[string][]string{} // streams by the value that is lowered
	addLowered := func(stream, format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		reasons[what] = append(reasons[what], stream)
	}
	// The defaults are recorded in the metadata of each stream.
	defaultStreams := Streams(Config{})
	want = Streams(cfg)
	shrink(want, cfg.MaxStore)
	for i := range want {
		s, defaults := &want[i], limitsOf(defaultStreams[i])
		h := have[s.Name]
		if h == nil {
			s.Metadata = withRecord(s.Metadata, defaults)
			continue
		}
		if h.Config.Storage != s.Storage && !given.KeepStorage {
			return nil, nil, newPermanentError("stream %s is stored in %s, and JetStream cannot move it to %s: "+
				"leave out --storage", s.Name, strings.ToLower(h.Config.Storage.String()), strings.ToLower(s.Storage.String()))
		}
		s.Storage = h.Config.Storage
		s.Placement, s.Compression, s.RePublish = h.Config.Placement, h.Config.Compression, h.Config.RePublish
		if given.Replicas == 0 {
			s.Replicas = h.Config.Replicas
		} else if s.Replicas < h.Config.Replicas {
			addLowered(s.Name, "replicas from %d to %d", h.Config.Replicas, s.Replicas)
		}

		fixed := limits{} // that cfg sets
		if given.MaxStore > 0 {
			fixed[maxBytes] = s.MaxBytes
			if s.Discard == jetstream.DiscardOld && uint64(s.MaxBytes) < h.State.Bytes {
				addLowered(s.Name, "the limit of %s is less than its size of %s",
					FormatBytes(s.MaxBytes), FormatBytes(int64(h.State.Bytes)))
			}
		}
		if given.ResultsAge > 0 && s.Name == Results || given.ReportsAge > 0 && s.Name == Reports {
			fixed[maxAge] = int64(s.MaxAge)
			if h.Config.MaxAge == 0 || s.MaxAge < h.Config.MaxAge {
				addLowered(s.Name, "age from %v to %v", h.Config.MaxAge, s.MaxAge)
			}
		}
		merged := merge(limitsOf(h.Config), limitsOf(defaultStreams[i]), readRecord(h.Config.Metadata), fixed)
		merged.set(s)
		// Without pipelines, cfg does not have their longest deadline.
		s.SubjectDeleteMarkerTTL = max(s.SubjectDeleteMarkerTTL, h.Config.SubjectDeleteMarkerTTL)
		metadata := s.Metadata
		s.Metadata = withoutServerMetadata(h.Config.Metadata)
		maps.Copy(s.Metadata, metadata)
		s.Metadata = withRecord(s.Metadata, defaults)
	}
	for what, names := range reasons {
		slices.Sort(names)
		lowered = append(lowered, strings.Join(names, ", ")+": "+what)
	}
	slices.Sort(lowered)
	return want, lowered, nil
}

// shrink lowers the limit of every stream in proportion, so that the sum is at most
// most.
func shrink(s []jetstream.StreamConfig, most int64) {
	all := total(s)
	if most <= 0 || most >= all {
		return
	}
	for i := range s {
		// As float64, because the product does not fit into an int64.
		s[i].MaxBytes = int64(float64(s[i].MaxBytes) * float64(most) / float64(all))
	}
}

func total(s []jetstream.StreamConfig) (n int64) {
	for i := range s {
		n += s[i].MaxBytes
	}
	return n
}

// TotalBytes returns how many bytes the streams of cfg reserve together, on each
// replica.
func TotalBytes(cfg Config) int64 {
	s := Streams(cfg)
	shrink(s, cfg.MaxStore)
	return total(s)
}

// Names of the limits that operators may change.
const (
	maxBytes      = "max_bytes"
	maxMsgs       = "max_msgs"
	maxMsgSize    = "max_msg_size"
	maxAge        = "max_age"
	duplicates    = "duplicates"
	maxAckPending = "max_ack_pending"
)

// limits are the limits of a stream or consumer, by name. -1 means no limit.
type limits map[string]int64

func limitsOf(s jetstream.StreamConfig) limits {
	unlimited := func(n int64) int64 {
		if n <= 0 {
			return -1
		}
		return n
	}
	return limits{
		maxBytes: unlimited(s.MaxBytes), maxMsgs: unlimited(s.MaxMsgs), maxMsgSize: unlimited(int64(s.MaxMsgSize)),
		maxAge: unlimited(int64(s.MaxAge)), duplicates: unlimited(int64(s.Duplicates)),
	}
}

func (l limits) set(s *jetstream.StreamConfig) {
	s.MaxBytes, s.MaxMsgs, s.MaxMsgSize = l[maxBytes], l[maxMsgs], int32(l[maxMsgSize])
	s.MaxAge, s.Duplicates = time.Duration(max(l[maxAge], 0)), time.Duration(max(l[duplicates], 0))
}

// merge returns the new limits of a stream or consumer: the fixed ones, and its present
// values for the others. A limit that the operator has not changed since the last set-up
// is raised to its default, because a newer version may have a higher one. This also
// applies to streams without a record, which old versions created.
func merge(have, defaults, record, fixed limits) limits {
	out := maps.Clone(have)
	for name, want := range defaults {
		recorded, known := record[name]
		unlimited := have[name] < 0
		if (!known || recorded == have[name]) && !unlimited && (want < 0 || want > have[name]) {
			out[name] = want
		}
	}
	maps.Copy(out, fixed)
	return out
}

// recordKey is the key of the metadata of a stream or consumer under which its last
// set-up has recorded the defaults.
const recordKey = "sightmesh.defaults"

// readRecord returns the limits that are recorded in metadata, if any.
func readRecord(metadata map[string]string) limits {
	var l limits
	if json.Unmarshal([]byte(metadata[recordKey]), &l) != nil {
		return nil
	}
	return l
}

// withRecord returns metadata in which defaults are recorded.
func withRecord(metadata map[string]string, defaults limits) map[string]string {
	b, err := json.Marshal(defaults)
	if err != nil {
		panic(err) // a map of numbers can be encoded
	}
	if metadata == nil {
		metadata = map[string]string{}
	}
	metadata[recordKey] = string(b)
	return metadata
}

// withoutServerMetadata returns the metadata without that of the server.
func withoutServerMetadata(metadata map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range metadata {
		if !strings.HasPrefix(k, "_nats.") {
			out[k] = v
		}
	}
	return out
}

func ensureConsumer(ctx context.Context, js jetstream.JetStream, c Consumer) error {
	want := c.Config
	defaults := limits{maxAckPending: int64(want.MaxAckPending)}
	found, err := js.Consumer(ctx, c.Stream, want.Durable)
	switch {
	case err == nil:
		have := found.CachedInfo().Config
		merged := merge(limits{maxAckPending: int64(have.MaxAckPending)}, defaults, readRecord(have.Metadata), nil)
		want.MaxAckPending = int(merged[maxAckPending])
		metadata := want.Metadata
		want.Metadata = withoutServerMetadata(have.Metadata)
		maps.Copy(want.Metadata, metadata)
		// An update cannot change where a consumer begins.
		want.DeliverPolicy, want.OptStartSeq = have.DeliverPolicy, have.OptStartSeq
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return fmt.Errorf("read it: %w", err)
	}
	want.Metadata = withRecord(want.Metadata, defaults)
	if _, err := js.CreateOrUpdateConsumer(ctx, c.Stream, want); err != nil {
		return err //nolint:wrapcheck // the caller says what it is about
	}
	return nil
}

// replyOfVersion01 returns the consumer reply of a mesh of version 0.1.0, which did not
// record its defaults, and nil for another mesh. In that version, reply also did the
// work of follow and notify. They begin at its position, because otherwise they would
// repeat what it has done. A follow or notify that was deleted begins with the first
// result, and does not repeat work that is already done.
func replyOfVersion01(ctx context.Context, js jetstream.JetStream) (*jetstream.ConsumerInfo, error) {
	reply, err := js.Consumer(ctx, Results, ResultsConsumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the consumer %s: %w", ResultsConsumer, err)
	}
	info := reply.CachedInfo()
	if _, recorded := info.Config.Metadata[recordKey]; recorded {
		return nil, nil
	}
	return info, nil
}

// checkServer checks the requirements of the mesh that do not depend on the streams.
func checkServer(ctx context.Context, js jetstream.JetStream) error {
	nc := js.Conn()
	_, err := js.AccountInfo(ctx)
	const need = MaxMessage + HeaderAllowance
	if most := nc.MaxPayload(); nc.IsConnected() && most < need {
		return newPermanentError("the server accepts messages of up to %d bytes, and the mesh needs %d: "+
			"set max_payload: %d in its configuration", most, need, need)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return newPermanentError("JetStream is not enabled for this account: "+
			"set jetstream: enabled in the account's configuration (%w)", err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		// In a cluster, JetStream may be enabled on another server, or later.
		enabled, _ := nc.ConnectedServerJetStream()
		if !enabled && nc.ConnectedClusterName() == "" && nc.IsConnected() {
			return newPermanentError("JetStream is not enabled on the server: "+
				"set jetstream { store_dir: FOLDER, max_file_store: %s } in its configuration (%w)",
				configBytes(TotalBytes(Config{})), err)
		}
	}
	return fmt.Errorf("read the limits of JetStream: %w", err)
}

// Error codes of JetStream for which the client library has no constant.
const (
	errNoPeers             jetstream.ErrorCode = 10005
	errInsufficientMemory  jetstream.ErrorCode = 10028
	errInsufficientStorage jetstream.ErrorCode = 10047
	errInvalidConfig       jetstream.ErrorCode = 10052
	errReplicas            jetstream.ErrorCode = 10074
)

// explain adds to the error of a stream how to fix it. The result is a [*PermanentError]
// unless another try may succeed.
func explain(
	ctx context.Context, js jetstream.JetStream, s jetstream.StreamConfig, all []jetstream.StreamConfig, err error,
) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return err
	}
	setting, kind := "max_file_store", "disk"
	if s.Storage == jetstream.MemoryStorage {
		setting, kind = "max_memory_store", "memory"
	}
	need := total(all)
	switch api.ErrorCode {
	case errInsufficientStorage, errInsufficientMemory:
		account, infoErr := js.AccountInfo(ctx)
		if infoErr != nil {
			return err
		}
		reserved, limit := account.ReservedStore, account.Limits.MaxStore
		if s.Storage == jetstream.MemoryStorage {
			reserved, limit = account.ReservedMemory, account.Limits.MaxMemory
		}
		// The server reports the limit of an account only. Its own limit is between
		// the reserved size and the sum of that and of this stream.
		there := "less than " + FormatBytes(int64(reserved)+s.MaxBytes*int64(s.Replicas))
		if limit >= 0 {
			there, setting = FormatBytes(limit), "the limit of the account, and "+setting
		}
		need *= int64(s.Replicas)
		return newPermanentError("the server has %s of %s for this account, of which %s are reserved, "+
			"and the streams of the mesh need %s: set %s to %s or more (%w)",
			there, kind, FormatBytes(int64(reserved)), FormatBytes(need), setting, configBytes(need), err)
	case errNoPeers:
		// Servers of a starting cluster can be offline.
		if strings.Contains(api.Description, "insufficient storage") && !strings.Contains(api.Description, "offline") {
			return newPermanentError("too few servers of the cluster have %s for %d copies of a stream of %s, "+
				"and the streams of the mesh need %s on each: set %s to %s or more (%w)",
				kind, s.Replicas, FormatBytes(s.MaxBytes), FormatBytes(need), setting, configBytes(need), err)
		}
	case errReplicas:
		return newPermanentError("%d replicas need a cluster of NATS servers, and this server is not in one: "+
			"set --replicas 1 (%w)", s.Replicas, err)
	case errInvalidConfig:
		return &PermanentError{Err: err}
	case jetstream.JSErrCodeStreamNameInUse, jetstream.JSErrCodeConsumerNameExists,
		jetstream.JSErrCodeConsumerAlreadyExists, jetstream.JSErrCodeConsumerExists:
		return err // another set-up has created it
	}
	if api.ErrorCode != errNoPeers && api.Code == http.StatusBadRequest {
		return &PermanentError{Err: err}
	}
	return err
}

// FormatBytes returns a number of bytes in a readable form, such as "6.25 GiB".
func FormatBytes(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.size {
			return fmt.Sprintf("%.2f %s", float64(n)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// configBytes returns a number of bytes in the syntax of the configuration of a NATS
// server, rounded up to whole MiB.
func configBytes(n int64) string {
	const mib = 1 << 20
	return fmt.Sprintf("%dMiB", cmp.Or((n+mib-1)/mib, 1))
}
