package shop

import (
	"encoding/json"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/skald-io/skald/events"
)

// NewOrder is the event of order number under the given id, as a message for the orders topic. The same
// seed and number give the same order.
func NewOrder(seed int64, id string, number int) *events.Message {
	skus := [...]string{"tea", "teapot", "cup", "kettle"}
	h := hash(seed, "order", number)
	lines := []Line{{skus[h%4], 1 + int(h>>8%3)}}
	if h>>16%2 == 0 {
		lines = append(lines, Line{skus[(h+1)%4], 1})
	}
	e := OrderPlaced{Type: "OrderPlaced", Order: id, Lines: lines}
	for _, l := range lines {
		e.Amount += int64(l.Quantity) * int64(500+100*len(l.SKU))
	}
	value, err := json.Marshal(e)
	if err != nil { // strings and numbers alone
		panic(err)
	}
	return &events.Message{Topic: OrdersTopic, Partition: -1, Key: []byte(id), Value: value,
		Headers: []events.Header{{Key: events.HeaderContentType, Value: []byte("application/json")}}}
}

// number is the digits at the end of an order's id; 0 when there are none.
func number(order string) int {
	n, err := strconv.Atoi(order[strings.LastIndexByte(order, '-')+1:])
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// hash decides what a random source would, but the same in every run of one seed, whatever the order of
// events.
func hash(seed int64, what string, number int) uint32 {
	h := fnv.New32a()
	h.Write([]byte(strconv.FormatInt(seed, 10) + "/" + what + "/" + strconv.Itoa(number)))
	x := h.Sum32() // fnv's low bits are poor for inputs that differ in their last byte
	x ^= x >> 16
	x *= 0x7feb352d
	x ^= x >> 15
	return x
}

// percent is true for about p of 100 numbers.
func percent(seed int64, what string, number int, p uint32) bool {
	return hash(seed, what, number)%100 < p
}
