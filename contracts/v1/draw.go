package v1

import "fmt"

// DrawRegion is a region as it is drawn on its image.
type DrawRegion struct {
	// Box is where its edge is drawn, in pixels of the upright image. What is
	// outside of the image is not drawn.
	Box Box `json:"box"`
	// Label decides the color: regions with the same label have the same.
	Label string `json:"label,omitempty"`
	// Title is written above the box. Without one it is the number of the region,
	// from 1.
	Title string `json:"title,omitempty"`
}

// DrawRegions returns the regions of a result as they are drawn. The title of a
// region is its label and score, and what a classifier named it. A region that
// was read has its number.
func DrawRegions(regions []Region) []DrawRegion {
	out := make([]DrawRegion, len(regions))
	for i, r := range regions {
		out[i] = DrawRegion{Box: r.Box, Label: r.Label}
		if r.Text != "" {
			continue
		}
		out[i].Title = fmt.Sprintf("%s %.2f", r.Label, r.Score)
		if len(r.Labels) > 0 {
			out[i].Title += ", " + r.Labels[0].Label
		}
	}
	return out
}
