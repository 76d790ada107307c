// Proof-check verifies a tree that a server serves with Go's own code for the checksum database: the
// signed head by golang.org/x/mod/sumdb/note, tiles and proofs by golang.org/x/mod/sumdb/tlog.
//
//	proof-check URL TOPIC PARTITION OLD...
//
// The tree is at URL/log/TOPIC/PARTITION/, proofs at URL/api/v1/proof/. Each OLD is a size in it. Prints the
// size of the head when all holds; else says what does not and exits with status 1.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func get(url string) []byte {
	answer, err := http.Get(url)
	check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	check(err)
	if answer.StatusCode != http.StatusOK {
		log.Fatalf("%s: %s %s", url, answer.Status, body)
	}
	return body
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// tiles reads tiles of height 8 from where C2SP tlog-tiles puts them.
type tiles struct{ base string }

func (tiles) Height() int                     { return 8 }
func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		found = append(found, get(t.base+"/"+path))
	}
	return found, nil
}

// proof is what the server's JSON says; base64 becomes bytes.
type proof struct {
	Leaf  string   `json:"leaf"`
	Size  int64    `json:"size"`
	Root  []byte   `json:"root"`
	Proof [][]byte `json:"proof"`
}

func ask(url string) (proof, []tlog.Hash) {
	var found proof
	check(json.Unmarshal(get(url), &found))
	var hashes []tlog.Hash
	for _, step := range found.Proof {
		hashes = append(hashes, tlog.Hash(step))
	}
	return found, hashes
}

func main() {
	url, topic, partition := os.Args[1], os.Args[2], os.Args[3]
	base := fmt.Sprintf("%s/log/%s/%s", url, topic, partition)
	verifier, err := note.NewVerifier(string(get(base + "/vkey")))
	check(err)
	opened, err := note.Open(get(base+"/checkpoint"), note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		log.Fatalf("%q is no checkpoint", opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)

	// Go checks each tile that it reads against the signed root.
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tiles{base})
	computed, err := tlog.TreeHash(size, reader)
	check(err)
	if computed != root {
		log.Fatal("the tiles lead to another root")
	}
	place := fmt.Sprintf("topic=%s&partition=%s&size=%d", topic, partition, size)
	for offset := int64(0); offset < size; offset += 7 {
		told, steps := ask(fmt.Sprintf("%s/api/v1/proof/inclusion?%s&offset=%d", url, place, offset))
		leaf := tlog.RecordHash([]byte(told.Leaf))
		check(tlog.CheckRecord(steps, size, root, offset, leaf))
		made, err := tlog.ProveRecord(size, offset, reader)
		check(err)
		if fmt.Sprint(made) != fmt.Sprint(tlog.RecordProof(steps)) {
			log.Fatalf("Go proves record %d otherwise", offset)
		}
	}
	for _, text := range os.Args[4:] {
		old, err := strconv.ParseInt(text, 10, 64)
		check(err)
		oldRoot, err := tlog.TreeHash(old, reader)
		check(err)
		_, steps := ask(fmt.Sprintf("%s/api/v1/proof/consistency?topic=%s&partition=%s&old=%d&new=%d",
			url, topic, partition, old, size))
		check(tlog.CheckTree(steps, size, root, old, oldRoot))
	}
	fmt.Println(size)
}
