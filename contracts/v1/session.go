package v1

// SessionControl is a text message of a client of GET /v1/stream.
type SessionControl struct {
	// Frame is the number of the frame that comes next. Numbers must rise; a
	// frame without one gets the next.
	Frame *int64 `json:"frame,omitempty"`
	// End says that no more frames come.
	End bool `json:"end,omitempty"`
}

// Dropped is the outcome of a frame that a newer one replaced before it was
// worked on.
const Dropped Status = "dropped"

// FrameOutcome is the outcome of one frame. Answers come in the order of the
// frames.
type FrameOutcome struct {
	Frame int64 `json:"frame"` // number of the frame
	// Status is done, failed or dropped.
	Status  Status   `json:"status"`
	Result  *Result  `json:"result,omitempty"`  // result of a frame that is done
	Problem *Problem `json:"problem,omitempty"` // problem of a frame that failed
}

// SessionEnd is the last message of a session. Every frame before Next was
// answered.
type SessionEnd struct {
	// End is true when every frame that the client sent was answered, after
	// its own end.
	End bool `json:"end"`
	// Problem says why the session ends before that.
	Problem *Problem `json:"problem,omitempty"`
	// Frames is how many were answered in this session.
	Frames int64 `json:"frames"`
	// Next is the number of the first frame that was not answered: where to
	// go on in another session.
	Next int64 `json:"next"`
}
