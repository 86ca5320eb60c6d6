package lanes

import (
	"cmp"
	"flag"
	"os"
	"time"

	"github.com/sightmesh/sightmesh/lane/bytesize"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// modelsVariable is the environment variable of the folder of models, for commands and services.
const modelsVariable = "SIGHTMESH_MODELS"

// RegisterModels registers the flag of the folder of models.
func RegisterModels(models *string, fs *flag.FlagSet) {
	fs.StringVar(models, "models", cmp.Or(os.Getenv(modelsVariable), "models"),
		"`folder` of models; default from "+modelsVariable)
}

// Flags are the flags of a command that starts lanes.
type Flags struct {
	// Models is the folder with ONNX Runtime and the models, which are found by name.
	Models string
	// Timeout is how long the lanes may take to load their models, and then for each image. It is more than 0.
	Timeout time.Duration
	// Memory is the limit of the resident memory of a lane, at least [pipeline.MinMemory]; 0 for no limit.
	Memory bytesize.Size
}

// Register registers the flags, with the usages of --timeout and --lane-memory for the command.
func (f *Flags) Register(fs *flag.FlagSet, timeoutUsage, memoryUsage string) {
	RegisterModels(&f.Models, fs)
	fs.DurationVar(&f.Timeout, "timeout", 30*time.Second, timeoutUsage)
	f.Memory = 1 << 30
	fs.Var(&f.Memory, "lane-memory", memoryUsage)
}

// Validate returns a usage error for a flag with an invalid value.
func (f *Flags) Validate() error {
	switch {
	case f.Timeout <= 0:
		return exit.Usagef("timeout: %v, want more than 0", f.Timeout)
	case f.Memory != 0 && f.Memory < pipeline.MinMemory:
		return exit.Usagef("lane-memory: %v, want 0 or at least %v", f.Memory, pipeline.MinMemory)
	}
	return nil
}

// MemoryLimit returns the memory limit of a lane whose stage has no limit.
func (f *Flags) MemoryLimit() pool.MemoryLimit {
	return pool.MemoryLimit{Bytes: int64(f.Memory), Setting: "--lane-memory"}
}
