package model

import "fmt"

// CheckNetwork is [Model.CheckFields] for a kind that is a network. It adds the fields that
// all networks use.
func (m *Model) CheckNetwork(used ...string) error {
	return m.CheckFields(append([]string{"engines", "weights", "config", "input"}, used...)...)
}

// OutputNames returns the output names in the model, or the usual ones when the model has
// none. A different number of names than usual is an error.
func (m *Model) OutputNames(usual ...string) ([]string, error) {
	switch {
	case len(m.Output.Names) == 0:
		return usual, nil
	case len(m.Output.Names) != len(usual):
		return nil, fmt.Errorf("output.names: %d names, want %d, usually %q",
			len(m.Output.Names), len(usual), usual)
	}
	return m.Output.Names, nil
}

// OnlyOutput returns the name of the output for a kind that decodes a single output.
// outputs are all outputs of the network; when there are several, the model must name one.
func (m *Model) OnlyOutput(outputs []string) ([]string, error) {
	if len(m.Output.Names) == 0 && len(outputs) != 1 {
		return nil, fmt.Errorf("output.names: missing, and the network has the outputs %q", outputs)
	}
	if len(m.Output.Names) == 0 {
		return outputs, nil
	}
	return m.OutputNames("output")
}

// CheckClasses returns an error unless the model has at least this number of classes and a
// label for each.
func (m *Model) CheckClasses(least int) error {
	if m.Classes < least {
		return fmt.Errorf("classes: %d, want %d or more", m.Classes, least)
	}
	if len(m.ClassNames) != m.Classes {
		return fmt.Errorf("labels: missing, want a file with a line for each of %d classes", m.Classes)
	}
	return nil
}

// EffectiveThreshold returns the minimum score: the setting, or the threshold of the model when
// the setting is nil. It must be more than 0 and at most 1.
func (m *Model) EffectiveThreshold(setting *float64) (float64, error) {
	t := m.Threshold
	if setting != nil {
		t = *setting
	}
	if !(t > 0 && t <= 1) {
		return 0, fmt.Errorf("threshold: %v in %s and the settings, want more than 0, and at most 1", t, File)
	}
	return t, nil
}
