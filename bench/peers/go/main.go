// Bench-mux-go measures multiplexers for Go as bench-mux does those for Rust.
//
// Called as `bench-mux-go JOB BENCH_MUX`, it does what the JSON object JOB describes and prints the
// figures as one object. BENCH_MUX is the program that serves shaped links.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Time that a measurement may take on top of what is measured.
const setUp = 120 * time.Second

type job struct {
	Peer     string          `json:"peer"`
	Scenario string          `json:"scenario"`
	Streams  int             `json:"streams"`
	Seconds  float64         `json:"seconds"`
	Path     json.RawMessage `json:"path"`
}

func (j *job) duration() time.Duration {
	return time.Duration(j.Seconds * float64(time.Second))
}

type figures map[string]float64

func main() {
	if err := run(os.Args[1:]); err != nil {
		fail(err)
	}
}

func run(arguments []string) error {
	if len(arguments) != 2 {
		return fmt.Errorf("usage: bench-mux-go JOB BENCH_MUX")
	}
	job := job{Streams: 1, Seconds: 3}
	if err := json.Unmarshal([]byte(arguments[0]), &job); err != nil {
		return fmt.Errorf("the job is not one: %w", err)
	}
	time.AfterFunc(setUp+job.duration(), func() {
		fail(fmt.Errorf("nothing was measured in time"))
	})
	opener, acceptor, err := connect(&job, arguments[1])
	if err != nil {
		return err
	}
	result, err := measure(opener, acceptor, &job)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench-mux-go:", err)
	os.Exit(1)
}
