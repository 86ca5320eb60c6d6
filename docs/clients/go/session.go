// Sends frames in order over a WebSocket, with coder/websocket: go run session.go http://127.0.0.1:8080 text *.png
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func main() {
	log.SetFlags(0)
	address, paths := os.Args[1]+"/v1/stream?pipeline="+os.Args[2], os.Args[3:]
	ctx := context.Background()
	for next := 0; next < len(paths); { // after a broken session, continue after the last outcome
		conn, err := connect(ctx, fmt.Sprintf("%s&from=%d", address, next))
		if err != nil {
			log.Fatal(err)
		}
		ended, err := run(ctx, conn, paths[next:])
		next += ended
		switch websocket.CloseStatus(err) {
		case websocket.StatusPolicyViolation, websocket.StatusMessageTooBig: // another session would end in the same way
			log.Fatal(err)
		}
	}
}

// connect opens a session. While the mesh has no room for it, connect retries after the seconds in Retry-After.
func connect(ctx context.Context, address string) (*websocket.Conn, error) {
	for {
		conn, res, err := websocket.Dial(ctx, address, nil)
		if err == nil {
			conn.SetReadLimit(-1)
			return conn, nil
		}
		if res == nil || res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusServiceUnavailable {
			return nil, err
		}
		seconds, noSeconds := strconv.Atoi(res.Header.Get("Retry-After"))
		if noSeconds != nil {
			return nil, err
		}
		time.Sleep(time.Duration(seconds) * time.Second)
	}
}

// run sends frames and prints their outcomes until the session ends. It returns the number of outcomes.
func run(ctx context.Context, conn *websocket.Conn, paths []string) (int, error) {
	sent := make(chan struct{})
	defer func() { <-sent }()
	defer conn.CloseNow()
	go func() {
		defer close(sent)
		if err := send(ctx, conn, paths); err != nil {
			log.Printf("session: %v", err)
			conn.CloseNow()
		}
	}()
	for ended := 0; ; {
		var message struct {
			v1.FrameOutcome
			Next *int64 `json:"next"` // only the last message has it
		}
		err := wsjson.Read(ctx, conn, &message)
		switch {
		case err != nil: // also when the mesh closed the session after its last message
			return ended, err
		case message.Next != nil && message.Problem != nil:
			log.Printf("session: %v", message.Problem)
		case message.Next != nil:
		case message.Status == v1.Done:
			ended++
			fmt.Println(message.Frame, "done", len(message.Result.Regions), "regions")
		default:
			ended++
			fmt.Println(message.Frame, message.Status, message.Problem)
		}
	}
}

// send sends the frames and the end mark. A write blocks while the mesh processes a full window of frames.
func send(ctx context.Context, conn *websocket.Conn, paths []string) error {
	for _, path := range paths {
		image, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := conn.Write(ctx, websocket.MessageBinary, image); err != nil {
			return err
		}
	}
	return wsjson.Write(ctx, conn, v1.SessionControl{End: true})
}
