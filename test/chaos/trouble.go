package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// troubles are what befalls a node, or what it needs, without killing it for good. Each heals before it returns, and says by
// what it is proven to have happened; an error says that it did not.
var troubles = map[string]func(*harness, context.Context) (proof string, err error){
	"pause": (*harness).pauseOwner,
	"flip":  (*harness).flipStore,
	"reset": (*harness).resetConnections,
	"slow":  (*harness).slowNetwork,
	"deaf":  (*harness).deafNode,
	"storm": (*harness).rebalanceStorm,

	"broker":     (*harness).killBroker,
	"controller": (*harness).killController,
}

// suffer lets one of them happen, and waits until all shards have living owners again.
func (h *harness) suffer(ctx context.Context, what string) error {
	proof, err := troubles[what](h, ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := h.owned(takeOverTime); err != nil {
		return fmt.Errorf("after %s (%s): %w", what, proof, err)
	}
	h.out.troubles[what]++
	h.logf("%-8s %s", what, proof)
	h.pause(time.Duration(h.rand.IntN(1000)) * time.Millisecond)
	return h.healthy()
}

// taken waits until others own what a node owned, and says how long that took.
func (h *harness) taken(n *node1, shards []int32) (time.Duration, error) {
	began := time.Now()
	err := h.track.until(takeOverTime, "what "+n.name+" owned is taken over", func() bool {
		return !slices.ContainsFunc(shards, func(s int32) bool { return h.track.owners[s].node == n.name })
	})
	return time.Since(began).Round(time.Millisecond), err
}

func (h *harness) shardsOf(n *node1) []int32 {
	h.track.mu.Lock()
	defer h.track.mu.Unlock()
	return h.track.shardsOf(n.name)
}

// pauseOwner stops a node until others have taken over from it, and lets it go on as if nothing had been.
func (h *harness) pauseOwner(context.Context) (string, error) {
	n := h.owner()
	owned := h.shardsOf(n)
	if err := n.signal(syscall.SIGSTOP); err != nil {
		return "", err
	}
	took, err := h.taken(n, owned)
	h.pause(time.Duration(h.rand.IntN(500)) * time.Millisecond)
	if err := errors.Join(err, n.signal(syscall.SIGCONT)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s stood still until its %d shards were others', %v", n.name, len(owned), took), nil
}

// flipStore kills a node, flips bits in the files of its stores, and starts it again.
func (h *harness) flipStore(context.Context) (string, error) {
	n := h.owner()
	owned := h.shardsOf(n)
	n.kill()
	flipped, err := h.flipBits(h.storeDir(n), 1+h.rand.IntN(8))
	if err == nil && flipped == 0 {
		err = errors.New("its stores have no files")
	}
	if err != nil {
		return "", err
	}
	if _, err := h.taken(n, owned); err != nil {
		return "", err
	}
	if err := h.startNode(n); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d bits in the stores of %s", flipped, n.name), nil
}

// flipBits flips so many bits below dir, each in a file that is not empty, and says how many there were to flip.
func (h *harness) flipBits(dir string, bits int) (flipped int, err error) {
	var files []string
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil && info.Size() > 0 {
			files = append(files, path)
		}
		return nil
	})
	if err != nil || len(files) == 0 {
		return 0, err
	}
	for range bits {
		file := files[h.rand.IntN(len(files))]
		data, err := os.ReadFile(file)
		if err != nil {
			return flipped, err
		}
		data[h.rand.IntN(len(data))] ^= 1 << h.rand.IntN(8)
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return flipped, err
		}
		flipped++
	}
	return flipped, nil
}

// network tells a node what its network is to be like, and gives the number that it answers with.
func (h *harness) network(n *node1, how string) (int, error) {
	if err := n.tell("net %s", how); err != nil {
		return 0, err
	}
	select {
	case line := <-n.said:
		return strconv.Atoi(strings.TrimPrefix(line, "net "))
	case <-n.ended:
		return 0, fmt.Errorf("%s ended by itself: %w (%s)", n.name, n.err, n.log)
	case <-time.After(20 * time.Second):
		return 0, fmt.Errorf("%s does not answer", n.name)
	}
}

func (h *harness) resetConnections(context.Context) (string, error) {
	n := h.owner()
	cut, err := h.network(n, "reset")
	if err == nil && cut == 0 {
		err = errors.New("it had no connections")
	}
	return fmt.Sprintf("%d connections of %s", cut, n.name), err
}

// lateBy is what slowNetwork adds to each read.
const lateBy = 200 * time.Millisecond

func (h *harness) slowNetwork(context.Context) (string, error) {
	n := h.owner()
	if _, err := h.network(n, "slow"); err != nil {
		return "", err
	}
	h.pause(3 * time.Second)
	late, err := h.network(n, "open")
	if err == nil && late == 0 {
		err = errors.New("it read nothing")
	}
	return fmt.Sprintf("%d reads of %s were %v late", late, n.name, lateBy), err
}

// deafNode lets a node send, and hear nothing, until others have taken over from it.
func (h *harness) deafNode(context.Context) (string, error) {
	n := h.owner()
	owned := h.shardsOf(n)
	if _, err := h.network(n, "deaf"); err != nil {
		return "", err
	}
	took, err := h.taken(n, owned)
	kept, openErr := h.network(n, "open")
	if err = errors.Join(err, openErr); err == nil && kept == 0 {
		err = errors.New("nothing was said to it")
	}
	return fmt.Sprintf("%s heard nothing, %d reads were kept back, until its %d shards were others', %v", n.name, kept, len(owned), took), err
}

// rebalanceStorm lets nodes leave and come back, one right after the other.
func (h *harness) rebalanceStorm(context.Context) (string, error) {
	before := h.claims()
	for range 3 {
		n := h.nodes[h.rand.IntN(len(h.nodes))]
		if err := n.term(20 * time.Second); err != nil {
			return "", err
		}
		if err := h.startNode(n); err != nil {
			return "", err
		}
		h.pause(time.Duration(h.rand.IntN(300)) * time.Millisecond)
	}
	if err := h.owned(takeOverTime); err != nil {
		return "", err
	}
	claims := h.claims() - before
	if claims == 0 {
		return "", errors.New("nobody claimed anything")
	}
	return fmt.Sprintf("3 nodes left and came back, %d claims", claims), nil
}

// claims is how many claims were read so far.
func (h *harness) claims() int {
	h.track.mu.Lock()
	defer h.track.mu.Unlock()
	return len(h.track.byNonce)
}

// killBroker kills one of three brokers, and starts it again.
func (h *harness) killBroker(ctx context.Context) (string, error) {
	return h.killBrokerAt(ctx, h.rand.IntN(len(h.brokers)))
}

// killController kills the broker that leads the cluster's metadata, and starts it again.
func (h *harness) killController(ctx context.Context) (string, error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic, topic.Partitions = "__cluster_metadata", []kmsg.DescribeQuorumRequestTopicPartition{kmsg.NewDescribeQuorumRequestTopicPartition()}
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, h.load)
	if err != nil {
		return "", err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return "", errors.New("the cluster does not say who leads it")
	}
	leader := resp.Topics[0].Partitions[0].LeaderID
	proof, err := h.killBrokerAt(ctx, int(leader)-1) // they are numbered from 1
	return "the controller: " + proof, err
}

func (h *harness) killBrokerAt(ctx context.Context, i int) (string, error) {
	if h.cluster == nil || len(h.brokers) < 3 {
		return "", errors.New("it takes three brokers of this program's own")
	}
	h.cluster.Kill(i)
	if c, err := net.DialTimeout("tcp", h.brokers[i], time.Second); err == nil {
		_ = c.Close()
		return "", fmt.Errorf("broker %d still answers", i+1)
	}
	h.pause(time.Duration(2+h.rand.IntN(4)) * time.Second)
	if err := h.cluster.Restart(ctx, i); err != nil {
		return "", err
	}
	return fmt.Sprintf("broker %d was dead", i+1), nil
}
