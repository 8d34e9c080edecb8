package main

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// The same as of bench-mux.
const (
	warmUp     = 500 * time.Millisecond
	piece      = 64 * 1024
	message    = 300
	churners   = 100
	floods     = 4
	baseEchoes = 50
	echoPause  = time.Millisecond
)

// Bytes read from a stream, in a cache line of its own.
type counter struct {
	atomic.Int64
	_ [56]byte
}

// The figures are there: what breaks from here on is the end of the process.
var measured atomic.Bool

func measure(opener, acceptor mux, job *job) (figures, error) {
	defer measured.Store(true)
	switch job.Scenario {
	case "bulk":
		return bulk(opener, acceptor, job)
	case "small":
		return small(opener, acceptor, job)
	case "churn":
		return churn(opener, acceptor, job.duration())
	case "idle":
		return idle(opener, acceptor, job.Streams)
	case "echo":
		return echo(opener, acceptor, job.duration())
	}
	return nil, fmt.Errorf("no scenario is called %s", job.Scenario)
}

func bulk(opener, acceptor mux, job *job) (figures, error) {
	counts, err := flood(opener, acceptor, job.Streams)
	if err != nil {
		return nil, err
	}
	bytes, seconds := count(counts, job.duration())
	total, squares := 0.0, 0.0
	for _, each := range bytes {
		total += each
		squares += each * each
	}
	jain := total * total / (float64(len(bytes)) * squares)
	return figures{"bytes_per_s": total / seconds, "jain": jain}, nil
}

func small(opener, acceptor mux, job *job) (figures, error) {
	streams, counts, err := openAll(opener, acceptor, job.Streams, 2*message)
	if err != nil {
		return nil, err
	}
	background(func() error {
		data := make([]byte, message)
		for {
			for _, each := range streams {
				if _, err := each.Write(data); err != nil {
					return err
				}
			}
		}
	})
	bytes, seconds := count(counts, job.duration())
	total := 0.0
	for _, each := range bytes {
		total += each
	}
	return figures{"messages_per_s": total / message / seconds}, nil
}

func churn(opener, acceptor mux, duration time.Duration) (figures, error) {
	done := make([]counter, 1)
	background(func() error {
		for {
			accepted, err := acceptor.accept()
			if err != nil {
				return err
			}
			background(func() error { return exchange(accepted, false) })
		}
	})
	for range churners {
		background(func() error {
			for {
				opened, err := opener.open()
				if err != nil {
					return err
				}
				if err := exchange(opened, true); err != nil {
					return err
				}
				done[0].Add(1)
			}
		})
	}
	streams, seconds := count(done, duration)
	if streams[0] == 0 {
		return nil, fmt.Errorf("no stream came to its end")
	}
	return figures{"streams_per_s": streams[0] / seconds}, nil
}

// Sends a byte and the end of the stream, and takes the other side's: first the one, or the other.
func exchange(s stream, sendsFirst bool) error {
	send := func() error {
		if _, err := s.Write([]byte("x")); err != nil {
			return err
		}
		return s.closeWrite()
	}
	if sendsFirst {
		if err := send(); err != nil {
			return err
		}
	}
	var scratch [16]byte
	for {
		if _, err := s.Read(scratch[:]); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	if sendsFirst {
		return nil
	}
	return send()
}

// Measures what the collector leaves: heap objects, and the stacks of goroutines.
func idle(opener, acceptor mux, streams int) (figures, error) {
	// The first stream pays for what a connection needs once.
	first, err := hold(opener, acceptor, 1)
	if err != nil {
		return nil, err
	}
	time.Sleep(warmUp)
	before := memory()
	held, err := hold(opener, acceptor, streams)
	if err != nil {
		return nil, err
	}
	time.Sleep(warmUp)
	bytes := float64(memory() - before)
	runtime.KeepAlive(first)
	runtime.KeepAlive(held)
	return figures{"bytes_per_stream": bytes / float64(streams)}, nil
}

func memory() int64 {
	var stats runtime.MemStats
	// What the first collection finds finalised or pooled goes with the second.
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}

func echo(opener, acceptor mux, duration time.Duration) (figures, error) {
	pair, err := hold(opener, acceptor, 1)
	if err != nil {
		return nil, err
	}
	near, far := pair[0], pair[1]
	data, answer := make([]byte, message), make([]byte, message)
	background(func() error {
		data := make([]byte, message)
		for {
			if _, err := io.ReadFull(far, data); err != nil {
				return err
			}
			if _, err := far.Write(data); err != nil {
				return err
			}
		}
	})
	base, samples := math.Inf(1), []float64{}
	var counts []counter
	var start time.Time
	var before float64
	for number := 0; ; number++ {
		if number == baseEchoes {
			if counts, err = flood(opener, acceptor, floods); err != nil {
				return nil, err
			}
			time.Sleep(2 * warmUp)
			start, before = time.Now(), sum(counts)
		}
		if number > baseEchoes && time.Since(start) >= duration {
			break
		}
		sent := time.Now()
		if _, err := near.Write(data); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(near, answer); err != nil {
			return nil, err
		}
		elapsed := time.Since(sent).Seconds() * 1e3
		if number < baseEchoes {
			base = min(base, elapsed)
		} else {
			samples = append(samples, elapsed)
		}
		time.Sleep(echoPause)
	}
	bytesPerS := (sum(counts) - before) / time.Since(start).Seconds()
	slices.Sort(samples)
	at := func(share float64) float64 { return samples[int(float64(len(samples)-1)*share)] }
	return figures{
		"base_ms":          base,
		"p50_ms":           at(0.5),
		"p99_ms":           at(0.99),
		"samples":          float64(len(samples)),
		"bulk_bytes_per_s": bytesPerS,
	}, nil
}

// Opens streams and fills each as fast as it goes.
func flood(opener, acceptor mux, streams int) ([]counter, error) {
	opened, counts, err := openAll(opener, acceptor, streams, piece)
	if err != nil {
		return nil, err
	}
	data := make([]byte, piece)
	for _, each := range opened {
		background(func() error {
			for {
				if _, err := each.Write(data); err != nil {
					return err
				}
			}
		})
	}
	return counts, nil
}

// Opens streams, and lets a goroutine read and count each at the other end.
func openAll(opener, acceptor mux, streams, scratch int) ([]stream, []counter, error) {
	held, err := hold(opener, acceptor, streams)
	if err != nil {
		return nil, nil, err
	}
	counts := make([]counter, streams)
	for number, each := range held[streams:] {
		background(func() error {
			buffer := make([]byte, scratch)
			for {
				length, err := each.Read(buffer)
				if err != nil {
					return err
				}
				counts[number].Add(int64(length))
			}
		})
	}
	return held[:streams], counts, nil
}

// Opens streams, each beginning with a byte each way. The opener's come first, then the acceptor's.
func hold(opener, acceptor mux, streams int) ([]stream, error) {
	held := make([]stream, 2*streams)
	accepted := make(chan error, 1)
	go func() {
		accepted <- func() error {
			for number := range streams {
				far, err := acceptor.accept()
				if err != nil {
					return err
				}
				if err := takeAndGive(far, false); err != nil {
					return err
				}
				held[streams+number] = far
			}
			return nil
		}()
	}()
	for number := range streams {
		near, err := opener.open()
		if err != nil {
			return nil, err
		}
		if err := takeAndGive(near, true); err != nil {
			return nil, err
		}
		held[number] = near
	}
	return held, <-accepted
}

func takeAndGive(s stream, givesFirst bool) error {
	var scratch [1]byte
	if givesFirst {
		if _, err := s.Write([]byte("x")); err != nil {
			return err
		}
	}
	if _, err := io.ReadFull(s, scratch[:]); err != nil {
		return err
	}
	if !givesFirst {
		if _, err := s.Write([]byte("x")); err != nil {
			return err
		}
	}
	return nil
}

// Gives what was counted in duration, after a warm-up, and the exact time.
func count(counts []counter, duration time.Duration) ([]float64, float64) {
	time.Sleep(warmUp)
	counted := make([]float64, len(counts))
	start := time.Now()
	for number := range counts {
		counted[number] = -float64(counts[number].Load())
	}
	time.Sleep(duration)
	seconds := time.Since(start).Seconds()
	for number := range counts {
		counted[number] += float64(counts[number].Load())
	}
	return counted, seconds
}

func sum(counts []counter) float64 {
	total := 0.0
	for number := range counts {
		total += float64(counts[number].Load())
	}
	return total
}

// Runs what must not fail while something is measured.
func background(task func() error) {
	go func() {
		if err := task(); err != nil && !measured.Load() {
			fail(err)
		}
	}()
}
