// SPDX-License-Identifier: Apache-2.0
// memberlist.go - one node of hashicorp/memberlist with timers from the command line: the tuned
// baseline of this harness (agents.py builds and starts it). Prints a JSON object for each event.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"regexp"
	"time"

	"github.com/hashicorp/memberlist"
)

type events struct{}

func say(event, node string) {
	fmt.Printf("{\"event\": %q, \"node\": %q}\n", event, node)
}

func (events) NotifyJoin(n *memberlist.Node)   { say("alive", n.Name) }
func (events) NotifyUpdate(n *memberlist.Node) {}
func (events) NotifyLeave(n *memberlist.Node) {
	if n.State == memberlist.StateLeft {
		say("left", n.Name)
	} else {
		say("dead", n.Name)
	}
}

// Doubts are told by the log alone.
func doubts(from io.Reader) {
	pattern := regexp.MustCompile(`Suspect (\S+) has failed`)
	for lines := bufio.NewScanner(from); lines.Scan(); {
		if found := pattern.FindStringSubmatch(lines.Text()); found != nil {
			say("suspect", found[1])
		}
	}
}

func main() {
	config := memberlist.DefaultLANConfig()
	flag.StringVar(&config.Name, "name", "", "of this node")
	flag.StringVar(&config.BindAddr, "bind", "", "address")
	join := flag.String("join", "", "address of a node of the cluster")
	flag.DurationVar(&config.ProbeInterval, "probe", time.Second, "between probes")
	flag.DurationVar(&config.ProbeTimeout, "timeout", 500*time.Millisecond, "of a direct probe")
	flag.DurationVar(&config.GossipInterval, "gossip", 200*time.Millisecond, "between rounds")
	flag.IntVar(&config.SuspicionMult, "suspicion", 4, "suspicion's multiplier")
	flag.Parse()
	config.AdvertiseAddr = config.BindAddr
	config.AdvertisePort = config.BindPort
	config.Events = events{}
	reader, writer := io.Pipe()
	config.LogOutput = writer
	go doubts(reader)
	list, err := memberlist.Create(config)
	if err != nil {
		log.Fatal(err)
	}
	for *join != "" {
		if _, err := list.Join([]string{*join}); err == nil {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	io.Copy(io.Discard, os.Stdin) // until the harness is gone or sends a signal
}
