package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"sync"
)

// Item is one line of an order.
type Item struct {
	Name  string  `json:"name"`
	Price float64 `json:"price,omitempty"`
}

type store struct {
	mu    sync.Mutex
	items map[string]Item
}

func (s *store) add(item Item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.items[item.Name]; ok {
		return fmt.Errorf("item %q exists", item.Name)
	}
	s.items[item.Name] = item
	return nil
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		if err := json.NewEncoder(w).Encode(s.items); err != nil {
			log.Printf("encode: %v", err)
		}
	case "POST":
		var item Item
		if err := json.NewDecoder(r.Body).Decode(&item); err != nil || item.Name == "" {
			http.Error(w, "bad item", 400)
			return
		}
		_ = s.add(item)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func main() {
	s := &store{items: make(map[string]Item, 16)}
	letters := []rune{'a', '\n', '('}
	for i, letter := range letters {
		fmt.Println(i*0x10, string(letter), `raw "text"`)
	}
	log.Fatal(http.ListenAndServe(":8080", s))
}
