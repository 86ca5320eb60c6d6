package v1

// SessionControl is a text message of a client in a session (GET /v1/stream).
type SessionControl struct {
	// Frame is the number of the next frame. Numbers must rise. A frame without a number
	// gets the next one.
	Frame *int64 `json:"frame,omitempty"`
	// End is true when the client sends no more frames.
	End bool `json:"end,omitempty"`
}

// Dropped is the outcome of a frame that a newer frame replaced before it was processed.
const Dropped Status = "dropped"

// FrameOutcome is the outcome of one frame. Outcomes are sent in the order of the frames.
type FrameOutcome struct {
	Frame int64 `json:"frame"` // number of the frame
	// Status is done, failed or dropped.
	Status  Status   `json:"status"`
	Result  *Result  `json:"result,omitempty"`  // result of a frame that is done
	Problem *Problem `json:"problem,omitempty"` // problem of a frame that failed
}

// SessionEnd is the last message of a session. Every frame before Next has its outcome.
type SessionEnd struct {
	// End is true when the client has ended the session and every frame has its outcome.
	End bool `json:"end"`
	// Problem is the reason why the session ends before that.
	Problem *Problem `json:"problem,omitempty"`
	// Frames is the number of outcomes in this session.
	Frames int64 `json:"frames"`
	// Next is the number of the first frame without outcome: another session can continue
	// with it.
	Next int64 `json:"next"`
}
