// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// An Error is what crosses the socket when something fails.
type Error struct {
	Text    string `json:"error"`
	HintTxt string `json:"hint,omitempty"`
	Code    string `json:"code,omitempty"` // for programs: what a Coded error says
}

func (e *Error) Error() string { return e.Text }

// Hint says what to do about it.
func (e *Error) Hint() string { return e.HintTxt }

// A Coded error has a word for programs to act on.
type Coded interface{ ErrorCode() string }

// AsError turns an error into what crosses the socket, with the remedy that it or an
// error wrapped in it carries.
func AsError(err error) *Error {
	var passed *Error
	if errors.As(err, &passed) {
		return passed
	}
	out := &Error{Text: err.Error()}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		out.HintTxt = hinted.Hint()
	}
	var coded Coded
	if errors.As(err, &coded) {
		out.Code = coded.ErrorCode()
	}
	return out
}

// Handle answers one route with one JSON object.
func Handle[Req, Resp any](mux *http.ServeMux, path string, f func(ctx context.Context, r *Req) (*Resp, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		req := new(Req)
		if err := read(w, r, req); err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		resp, err := f(r.Context(), req)
		if err != nil {
			refuse(w, http.StatusUnprocessableEntity, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(resp)
	})
}

// Stream answers one route with JSON objects, one a line, until f returns. An error
// after the first line is the last line.
func Stream[Req any](mux *http.ServeMux, path string, f func(ctx context.Context, r *Req, send func(any) error) error) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		req := new(Req)
		if err := read(w, r, req); err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		send := func(v any) error {
			line, err := json.Marshal(v)
			if err != nil {
				return err
			}
			if _, err := w.Write(append(line, '\n')); err != nil {
				return err
			}
			return http.NewResponseController(w).Flush()
		}
		if err := f(r.Context(), req, send); err != nil {
			send(AsError(err))
		}
	})
}

func read(w http.ResponseWriter, r *http.Request, v any) error {
	if r.Header.Get("Content-Type") != "application/json" {
		return errors.New("a request is application/json")
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	return decode(data, v)
}

// decode takes one JSON object without unknown members and nothing after it.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("malformed request: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("malformed request: something follows it")
	}
	return nil
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(AsError(err))
}

// Serve answers until ctx ends; requests that run then have a moment to end.
func Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return running },
	}
	stop := context.AfterFunc(ctx, func() {
		drain, done := context.WithTimeout(context.Background(), time.Second)
		defer done()
		srv.Shutdown(drain)
	})
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
