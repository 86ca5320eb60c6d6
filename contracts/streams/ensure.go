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

// Update says how [Ensure] treats streams that exist.
type Update struct {
	// KeepStorage means that Storage is for the first set-up only: streams
	// that exist keep theirs, and new ones get the same.
	KeepStorage bool
	// MaxStore is the most that all streams together may hold, in bytes. The
	// limit of every stream is lowered in proportion. 0 means no such limit.
	MaxStore int64
	// Force allows what may delete messages or copies of them: fewer
	// replicas, shorter ages, a limit below what a stream holds.
	Force bool
}

// LeastStore is the least MaxStore with which the largest message still fits
// into every queue several times.
const LeastStore = 256 << 20

// PermanentError is an error of [Ensure] that another try does not mend.
type PermanentError struct{ Err error }

// Error returns the text of the wrapped error.
func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap returns the wrapped error.
func (e *PermanentError) Unwrap() error { return e.Err }

func permanent(format string, args ...any) error {
	return &PermanentError{Err: fmt.Errorf(format, args...)}
}

// Ensure creates every stream and consumer that is missing, and brings those
// that exist up to date. It can be run again at any time.
//
// What cfg does not say stays as it is: a Replicas, ResultsAge, ReportsAge or
// MaxStore of 0 keeps what a stream has, and so do the limits that an operator
// has changed. A pipeline that is no longer named keeps its consumers, so that
// what is queued for it is not lost; they are removed by hand.
//
// Ensure changes nothing when the server lacks something that the mesh needs,
// or when Force is missing. Both are a [*PermanentError].
func Ensure(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	if err := checkServer(ctx, js); err != nil {
		return err
	}
	have, err := existing(ctx, js, cfg)
	if err != nil {
		return err
	}
	want, lowered, err := plan(cfg, have)
	if err != nil {
		return err
	}
	if len(lowered) > 0 && !cfg.Force {
		return permanent("this may delete what is stored, and needs --force: %s", strings.Join(lowered, "; "))
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
			c.Config.DeliverPolicy, c.Config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, reply.AckFloor.Stream+1
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

// existing returns the streams of the mesh that exist, by name.
func existing(ctx context.Context, js jetstream.JetStream, cfg Config) (map[string]*jetstream.StreamInfo, error) {
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

// plan merges what cfg says with the streams that exist. It returns the
// configuration of every stream, and what it lowers in words.
func plan(cfg Config, have map[string]*jetstream.StreamInfo) (
	want []jetstream.StreamConfig, lowered []string, err error,
) {
	said := cfg
	for _, s := range have { // a new stream is like the others
		if said.Replicas == 0 {
			cfg.Replicas = max(cfg.Replicas, s.Config.Replicas)
		}
		if said.KeepStorage {
			cfg.Storage = s.Config.Storage
		}
	}
	reasons := map[string][]string{} // streams by what is lowered
	lower := func(stream, format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		reasons[what] = append(reasons[what], stream)
	}
	// The record has the limits as they are by default.
	usual := Streams(Config{})
	want = Streams(cfg)
	shrink(want, cfg.MaxStore)
	for i := range want {
		s, defaults := &want[i], limitsOf(usual[i])
		h := have[s.Name]
		if h == nil {
			s.Metadata = recorded(s.Metadata, defaults)
			continue
		}
		if h.Config.Storage != s.Storage && !said.KeepStorage {
			return nil, nil, permanent("stream %s is stored in %s, and JetStream cannot move it to %s: leave out --storage",
				s.Name, strings.ToLower(h.Config.Storage.String()), strings.ToLower(s.Storage.String()))
		}
		s.Storage = h.Config.Storage
		s.Placement, s.Compression, s.RePublish = h.Config.Placement, h.Config.Compression, h.Config.RePublish
		if said.Replicas == 0 {
			s.Replicas = h.Config.Replicas
		} else if s.Replicas < h.Config.Replicas {
			lower(s.Name, "replicas from %d to %d", h.Config.Replicas, s.Replicas)
		}

		fixed := limits{} // what was said
		if said.MaxStore > 0 {
			fixed[maxBytes] = s.MaxBytes
			if s.Discard == jetstream.DiscardOld && uint64(s.MaxBytes) < h.State.Bytes {
				lower(s.Name, "a limit of %s while it holds %s", FormatBytes(s.MaxBytes), FormatBytes(int64(h.State.Bytes)))
			}
		}
		if said.ResultsAge > 0 && s.Name == Results || said.ReportsAge > 0 && s.Name == Reports {
			fixed[maxAge] = int64(s.MaxAge)
			if h.Config.MaxAge == 0 || s.MaxAge < h.Config.MaxAge {
				lower(s.Name, "age from %v to %v", h.Config.MaxAge, s.MaxAge)
			}
		}
		merged := merge(limitsOf(h.Config), limitsOf(usual[i]), record(h.Config.Metadata), fixed)
		merged.set(s)
		// Without pipelines their longest deadline is not known.
		s.SubjectDeleteMarkerTTL = max(s.SubjectDeleteMarkerTTL, h.Config.SubjectDeleteMarkerTTL)
		metadata := s.Metadata
		s.Metadata = kept(h.Config.Metadata)
		maps.Copy(s.Metadata, metadata)
		s.Metadata = recorded(s.Metadata, defaults)
	}
	for what, names := range reasons {
		slices.Sort(names)
		lowered = append(lowered, strings.Join(names, ", ")+": "+what)
	}
	slices.Sort(lowered)
	return want, lowered, nil
}

// shrink lowers the limit of every stream in proportion, so that together they
// hold no more than most.
func shrink(s []jetstream.StreamConfig, most int64) {
	all := total(s)
	if most <= 0 || most >= all {
		return
	}
	for i := range s {
		// In this order, because bytes times bytes are too many for an int64.
		s[i].MaxBytes = int64(float64(s[i].MaxBytes) * float64(most) / float64(all))
	}
}

func total(s []jetstream.StreamConfig) (n int64) {
	for i := range s {
		n += s[i].MaxBytes
	}
	return n
}

// TotalBytes returns what the streams of cfg reserve together, of every copy.
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

// limits of a stream or consumer, by name. -1 means that there is none.
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

// merge gives the limits that a stream or consumer is to have: those that are
// fixed; of the others those that it has. A limit that the operator has not
// changed since the last set-up is raised to its default, which may be that of
// a newer version. That also holds without a record, as of streams from before
// there was one.
func merge(have, defaults, record, fixed limits) limits {
	out := maps.Clone(have)
	for name, want := range defaults {
		was, known := record[name]
		unlimited := have[name] < 0
		if (!known || was == have[name]) && !unlimited && (want < 0 || want > have[name]) {
			out[name] = want
		}
	}
	maps.Copy(out, fixed)
	return out
}

// recordKey is where the metadata of a stream or consumer has the defaults as
// of its last set-up.
const recordKey = "sightmesh.defaults"

// record returns the limits that metadata has on record, if any.
func record(metadata map[string]string) limits {
	var l limits
	if json.Unmarshal([]byte(metadata[recordKey]), &l) != nil {
		return nil
	}
	return l
}

// recorded returns metadata with defaults on record.
func recorded(metadata map[string]string, defaults limits) map[string]string {
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

// kept returns the metadata that is not the server's own.
func kept(metadata map[string]string) map[string]string {
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
		merged := merge(limits{maxAckPending: int64(have.MaxAckPending)}, defaults, record(have.Metadata), nil)
		want.MaxAckPending = int(merged[maxAckPending])
		metadata := want.Metadata
		want.Metadata = kept(have.Metadata)
		maps.Copy(want.Metadata, metadata)
		// Where it began stays as it is.
		want.DeliverPolicy, want.OptStartSeq = have.DeliverPolicy, have.OptStartSeq
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return fmt.Errorf("read it: %w", err)
	}
	want.Metadata = recorded(want.Metadata, defaults)
	if _, err := js.CreateOrUpdateConsumer(ctx, c.Stream, want); err != nil {
		return err //nolint:wrapcheck // the caller says what it is about
	}
	return nil
}

// replyOfVersion01 returns the consumer reply of a mesh of version 0.1.0, which
// kept no record of its defaults, and nil for another one. In that version reply
// did the work of follow and notify too: what it has acknowledged would be done
// twice, so that they begin where it is. A follow or notify that was deleted
// begins with all results: what was done already is done once.
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

// checkServer reports what the server lacks, whatever the streams.
func checkServer(ctx context.Context, js jetstream.JetStream) error {
	nc := js.Conn()
	_, err := js.AccountInfo(ctx)
	const need = MaxMessage + HeaderAllowance
	if most := nc.MaxPayload(); nc.IsConnected() && most < need {
		return permanent("the server takes messages of up to %d bytes, and the mesh needs %d: "+
			"set max_payload: %d in its configuration", most, need, need)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return permanent("JetStream is not enabled for this account: "+
			"set jetstream: enabled in the account's configuration (%w)", err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		// In a cluster it may be on another server, or come later.
		if enabled, _ := nc.ConnectedServerJetStream(); !enabled && nc.ConnectedClusterName() == "" && nc.IsConnected() {
			return permanent("JetStream is not enabled on the server: "+
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

// explain adds to the error of a stream what is to be done about it, and tells
// whether another try may help.
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
		// Only the limit of an account is told; that of the server is above
		// what is reserved and below that and this stream.
		there := "less than " + FormatBytes(int64(reserved)+s.MaxBytes*int64(s.Replicas))
		if limit >= 0 {
			there, setting = FormatBytes(limit), "the limit of the account, and "+setting
		}
		need *= int64(s.Replicas)
		return permanent("the server has %s of %s for this account, of which %s are reserved, and the streams of the mesh "+
			"need %s: set %s to %s or more (%w)",
			there, kind, FormatBytes(int64(reserved)), FormatBytes(need), setting, configBytes(need), err)
	case errNoPeers:
		// A server of a cluster that is starting is offline.
		if strings.Contains(api.Description, "insufficient storage") && !strings.Contains(api.Description, "offline") {
			return permanent("too few servers of the cluster have %s for %d copies of a stream of %s, "+
				"and the streams of the mesh need %s on each: set %s to %s or more (%w)",
				kind, s.Replicas, FormatBytes(s.MaxBytes), FormatBytes(need), setting, configBytes(need), err)
		}
	case errReplicas:
		return permanent("%d replicas need a cluster of NATS servers, and this server is not in one: "+
			"set --replicas 1 (%w)", s.Replicas, err)
	case errInvalidConfig:
		return &PermanentError{Err: err}
	case jetstream.JSErrCodeStreamNameInUse, jetstream.JSErrCodeConsumerNameExists,
		jetstream.JSErrCodeConsumerAlreadyExists, jetstream.JSErrCodeConsumerExists:
		return err // another set-up was first
	}
	if api.ErrorCode != errNoPeers && api.Code == http.StatusBadRequest {
		return &PermanentError{Err: err}
	}
	return err
}

// FormatBytes returns a number of bytes as people read it, such as "6.25 GiB".
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

// configBytes returns a number of bytes as the configuration of a NATS server
// has it, rounded up to whole MiB.
func configBytes(n int64) string {
	const mib = 1 << 20
	return fmt.Sprintf("%dMiB", cmp.Or((n+mib-1)/mib, 1))
}
