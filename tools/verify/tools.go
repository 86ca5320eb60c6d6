//go:build tools

// Package verify names the programs that check the chart, so that their
// versions are kept in its go.mod.
package verify

import (
	_ "github.com/yannh/kubeconform/cmd/kubeconform"
	_ "helm.sh/helm/v3/cmd/helm"
)
