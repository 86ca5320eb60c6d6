package run

import (
	"flag"
	"fmt"
)

// formerName is the value of a flag under the name that it had in the previous
// release.
type formerName struct {
	flag.Value
	former, name string
}

// String returns the value. Package flag also calls it on a zero formerName.
func (f formerName) String() string {
	if f.Value == nil {
		return ""
	}
	return f.Value.String()
}

// FormerName registers the former name of the flag name. A service that is started
// with the former name logs a warning.
func FormerName(fs *flag.FlagSet, name, former string) {
	fs.Var(formerName{fs.Lookup(name).Value, former, name}, former, "former name of --"+name+"; will be removed")
}

// givenFormerNames returns the flags that were given under their former names. It
// returns an error when a flag was given under both names.
func givenFormerNames(fs *flag.FlagSet) (given []formerName, err error) {
	set := map[string]bool{}
	fs.Visit(func(f *flag.Flag) {
		set[f.Name] = true
		if v, ok := f.Value.(formerName); ok {
			given = append(given, v)
		}
	})
	for _, f := range given {
		if set[f.name] {
			return nil, fmt.Errorf("--%s is the former name of --%s: give one of them", f.former, f.name)
		}
	}
	return given, nil
}
