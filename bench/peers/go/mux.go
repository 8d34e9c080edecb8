package main

import (
	"io"

	"github.com/hashicorp/yamux"
	"github.com/xtaci/smux"
)

// One end of a connection that carries streams.
type mux interface {
	open() (stream, error)
	accept() (stream, error)
}

// A stream whose two halves end one by one.
type stream interface {
	io.Reader
	io.Writer
	// Says that nothing more will be written.
	closeWrite() error
}

// The credit of each stream: the default of yamux. Smux moves more with it than with its 64 KiB, and
// with 1 MiB neither moves more, but both let an echo wait longer.
const windowBytes = 256 * 1024

// How to make either end of each multiplexer.
var peers = map[string]struct {
	client, server func(io.ReadWriteCloser) (mux, error)
}{
	"go-yamux": {newYamux(yamux.Client), newYamux(yamux.Server)},
	"go-smux":  {newSmux(smux.Client), newSmux(smux.Server)},
}

type yamuxEnd struct{ *yamux.Session }

type yamuxStream struct{ *yamux.Stream }

func newYamux(
	end func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error),
) func(io.ReadWriteCloser) (mux, error) {
	return func(link io.ReadWriteCloser) (mux, error) {
		config := yamux.DefaultConfig()
		// It logs the end of the process as a broken connection.
		config.LogOutput = io.Discard
		session, err := end(link, config)
		return yamuxEnd{session}, err
	}
}

func (e yamuxEnd) open() (stream, error) {
	opened, err := e.OpenStream()
	return yamuxStream{opened}, err
}

func (e yamuxEnd) accept() (stream, error) {
	accepted, err := e.AcceptStream()
	return yamuxStream{accepted}, err
}

func (s yamuxStream) closeWrite() error { return s.Close() }

type smuxEnd struct{ *smux.Session }

type smuxStream struct{ *smux.Stream }

func newSmux(
	end func(io.ReadWriteCloser, *smux.Config) (*smux.Session, error),
) func(io.ReadWriteCloser) (mux, error) {
	return func(link io.ReadWriteCloser) (mux, error) {
		config := smux.DefaultConfig()
		// The version that has credit for each stream.
		config.Version = 2
		config.MaxStreamBuffer = windowBytes
		config.MaxReceiveBuffer = 64 * windowBytes
		session, err := end(link, config)
		return smuxEnd{session}, err
	}
}

func (e smuxEnd) open() (stream, error) {
	opened, err := e.OpenStream()
	return smuxStream{opened}, err
}

func (e smuxEnd) accept() (stream, error) {
	accepted, err := e.AcceptStream()
	return smuxStream{accepted}, err
}

func (s smuxStream) closeWrite() error { return s.CloseWrite() }
