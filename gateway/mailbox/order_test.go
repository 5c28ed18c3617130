// SPDX-License-Identifier: Apache-2.0

package mailbox_test

import (
	"slices"
	"sync"
	"testing"

	"valise/gateway/mailbox"
)

// What is urgent gets its number before what waited longer for the same write, but for
// its own device's, and for what a commit divides.
func TestPrecedenceOrdersABatch(t *testing.T) {
	for name, c := range map[string]struct {
		from       []int
		precedence []uint8
		step       int // place of a commit; 0: none
		want       []string
	}{
		"all alike":                {[]int{1, 2, 3}, []uint8{0, 0, 0}, 0, []string{"0", "1", "2"}},
		"a flash":                  {[]int{1, 2, 3, 4}, []uint8{0, 1, 0, 3}, 0, []string{"3", "1", "0", "2"}},
		"not past its own device":  {[]int{1, 2, 2}, []uint8{0, 0, 3}, 0, []string{"0", "1", "2"}},
		"equals keep their places": {[]int{1, 2, 3, 4}, []uint8{0, 2, 0, 2}, 0, []string{"1", "3", "0", "2"}},
		"not past a commit":        {[]int{1, 0, 3}, []uint8{0, 0, 3}, 1, []string{"0", "1", "2"}},
		"up to a commit":           {[]int{1, 0, 3, 4}, []uint8{0, 0, 0, 3}, 1, []string{"0", "1", "3", "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(openStore(t, 10))
			box, _ := run(t, mailbox.Config{Store: g})
			g.opened(t)
			placed := make(map[uint64]string)
			var all sync.WaitGroup
			submit := func(sub *mailbox.Submission, name string) {
				all.Add(1)
				err := box.Submit(t.Context(), sub, func(o mailbox.Outcome, err error) {
					defer all.Done()
					if err != nil || o.Verdict != mailbox.Done || len(o.Placed) != 1 {
						t.Errorf("%s: %+v, %v", name, o, err)
						return
					}
					placed[o.Placed[0].Number] = name // by the committer alone
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			submit(message(9, 1, "first", 5), "first")
			<-g.entered
			counters := map[int]uint64{0: 1}
			for i, from := range c.from {
				counters[from]++
				sub := message(from, counters[from], string(rune('0'+i)), 5)
				sub.Precedence = c.precedence[i]
				if c.step > 0 && i == c.step {
					sub.Step = &mailbox.Step{Group: []byte("g"), From: 0, To: 1, Info: []byte("i")}
				}
				submit(sub, string(rune('0'+i)))
			}
			go func() {
				for range g.entered {
					select {
					case g.door <- struct{}{}:
					case <-g.free:
					}
				}
			}()
			g.door <- struct{}{}
			all.Wait()
			var got []string
			for n := uint64(2); n <= uint64(len(c.from)+1); n++ {
				got = append(got, placed[n])
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("numbered in the order %v, want %v", got, c.want)
			}
		})
	}
}
