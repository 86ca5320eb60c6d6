package worker

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sightmesh/sightmesh/lane"
)

// parseProviders parses providers of ONNX Runtime. Each has its name, optionally the
// number of the GPU after a colon, and settings, such as
// "cuda:1,gpu_mem_limit=2147483648". The lanes check whether the provider exists.
func parseProviders(text string) ([]lane.Provider, error) {
	var all []lane.Provider
	for one := range strings.SplitSeq(text, ";") {
		fields := strings.Split(strings.TrimSpace(one), ",")
		name, number, numbered := strings.Cut(fields[0], ":")
		if name == "" {
			return nil, fmt.Errorf("%q, want the name of a provider", one)
		}
		p := lane.Provider{Name: name}
		if numbered {
			device, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				return nil, fmt.Errorf("%q, want the number of a GPU behind the colon", fields[0])
			}
			p.Device = int(device)
		}
		for _, setting := range fields[1:] {
			key, value, ok := strings.Cut(setting, "=")
			if !ok || key == "" {
				return nil, fmt.Errorf("%q, want a setting as KEY=VALUE", setting)
			}
			if p.Settings == nil {
				p.Settings = map[string]string{}
			}
			p.Settings[key] = value
		}
		all = append(all, p)
	}
	return all, nil
}
