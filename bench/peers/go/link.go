package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Go has no setting for the cipher suite of TLS 1.3; this is the one that it agrees on with itself
// where the processor has AES, and that bench-mux uses.
const suite = tls.TLS_AES_128_GCM_SHA256

// Joins two ends of the job's multiplexer by TLS over loopback, or over the job's shaped link.
func connect(job *job, benchMux string) (opener, acceptor mux, err error) {
	peer, known := peers[job.Peer]
	if !known {
		return nil, nil, fmt.Errorf("no peer is called %s", job.Peer)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	address := listener.Addr().String()
	if len(job.Path) > 0 {
		if address, err = shape(job.Path, address, benchMux); err != nil {
			return nil, nil, err
		}
	}
	certificate, roots, err := makeCertificate()
	if err != nil {
		return nil, nil, err
	}
	accepted := make(chan error, 1)
	go func() {
		socket, err := listener.Accept()
		if err == nil {
			acceptor, err = secure(tls.Server(socket, &tls.Config{
				Certificates: []tls.Certificate{certificate},
				MinVersion:   tls.VersionTLS13,
			}), peer.server)
		}
		accepted <- err
	}()
	socket, err := net.Dial("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	opener, err = secure(tls.Client(socket, &tls.Config{
		RootCAs:    roots,
		ServerName: "localhost",
		MinVersion: tls.VersionTLS13,
	}), peer.client)
	return opener, acceptor, errors.Join(err, <-accepted)
}

func secure(link *tls.Conn, end func(io.ReadWriteCloser) (mux, error)) (mux, error) {
	if err := link.Handshake(); err != nil {
		return nil, err
	}
	if agreed := link.ConnectionState().CipherSuite; agreed != suite {
		return nil, fmt.Errorf("the ends agreed on %s", tls.CipherSuiteName(agreed))
	}
	return end(link)
}

// Serves the shaped link until this process ends and its standard input with it. Kept here, because
// the collector would close the pipe.
var shaper *exec.Cmd

// Starts a shaped link to target and gives the address that leads there.
func shape(path json.RawMessage, target, benchMux string) (string, error) {
	job, err := json.Marshal(map[string]any{"peer": "shaper", "path": path, "target": target})
	if err != nil {
		return "", err
	}
	shaper = exec.Command(benchMux, string(job))
	shaper.Stderr = os.Stderr
	if _, err := shaper.StdinPipe(); err != nil {
		return "", err
	}
	output, err := shaper.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := shaper.Start(); err != nil {
		return "", err
	}
	address, err := bufio.NewReader(output).ReadString('\n')
	return strings.TrimSpace(address), err
}

func makeCertificate() (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := x509.Certificate{
		SerialNumber:          big.NewInt(1),
		DNSNames:              []string{"localhost"},
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, nil
}
