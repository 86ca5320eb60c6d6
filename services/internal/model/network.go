package model

import "fmt"

// CheckNetwork is [Model.CheckFields] for a kind that is a network, with the fields that
// each network has.
func (m *Model) CheckNetwork(used ...string) error {
	return m.CheckFields(append([]string{"engines", "weights", "config", "input"}, used...)...)
}

// OutputNames returns the names of the outputs of a network: those of the model, or the
// usual ones. The error says that the model has another number of them.
func (m *Model) OutputNames(usual ...string) ([]string, error) {
	switch {
	case len(m.Output.Names) == 0:
		return usual, nil
	case len(m.Output.Names) != len(usual):
		return nil, fmt.Errorf("output.names: %d names, want %d, of what is usually %q",
			len(m.Output.Names), len(usual), usual)
	}
	return m.Output.Names, nil
}

// OnlyOutput returns the name of the one output that is read of a network with these
// outputs.
func (m *Model) OnlyOutput(outputs []string) ([]string, error) {
	if len(m.Output.Names) == 0 && len(outputs) != 1 {
		return nil, fmt.Errorf("output.names: missing, and the network has the outputs %q", outputs)
	}
	if len(m.Output.Names) == 0 {
		return outputs, nil
	}
	return m.OutputNames("output")
}

// CheckClasses returns an error unless the model has at least so many classes, and
// labels for them.
func (m *Model) CheckClasses(least int) error {
	if m.Classes < least {
		return fmt.Errorf("classes: %d, want %d or more", m.Classes, least)
	}
	if len(m.ClassNames) != m.Classes {
		return fmt.Errorf("labels: missing, want a file with a line for each of %d classes", m.Classes)
	}
	return nil
}

// ThresholdOr returns the score from which on something counts: that of a setting, or
// that of the model when the setting is nil.
func (m *Model) ThresholdOr(setting *float64) (float64, error) {
	t := m.Threshold
	if setting != nil {
		t = *setting
	}
	if !(t > 0 && t <= 1) {
		return 0, fmt.Errorf("threshold: %v in %s and the settings, want more than 0, and at most 1", t, File)
	}
	return t, nil
}
