// logcheck: an independent witness of what the market's log says: notes and cosignatures by
// golang.org/x/mod/sumdb/note, inclusion and consistency by sumdb/tlog, leaves computed anew.
// Reads {"bundle": …, "old": checkpoint reply, "new": checkpoint reply with consistency} and
// prints what it checked; anything wrong, or anything altered that is still taken, ends it.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type head struct {
	Log         string
	Vkey        string
	Checkpoint  string
	Consistency []string
	Witnessed   []struct{ Witness, Vkey, Checkpoint string }
}

type input struct {
	Bundle struct {
		Logs    map[string]head
		Entries []struct {
			Log    string
			Index  int64
			Nonce  string
			Record json.RawMessage
			Proof  []string
		}
	}
	Old, New head
}

func fail(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, "logcheck: "+format+"\n", args...)
	os.Exit(1)
}

func must(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

// A witness's key, c2sp.org/tlog-cosignature: not an algorithm of the package's own.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (w witness) Name() string    { return w.name }
func (w witness) KeyHash() uint32 { return w.hash }
func (w witness) Verify(msg, sig []byte) bool {
	if len(sig) != 72 {
		return false
	}
	text := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig[:8]), msg)
	return ed25519.Verify(w.key, []byte(text), sig[8:])
}

func parseWitness(vkey string) witness {
	parts := strings.SplitN(vkey, "+", 3)
	blob, err := base64.StdEncoding.DecodeString(parts[2])
	must(err, "witness key")
	if len(blob) != 33 || blob[0] != 4 {
		fail("witness key %s is not of algorithm 4", vkey)
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), blob...))
	if hex.EncodeToString(sum[:4]) != parts[1] {
		fail("witness key %s has another hash", vkey)
	}
	return witness{parts[0], binary.BigEndian.Uint32(sum[:4]), blob[1:]}
}

// The size and root of a head that its log's key signed.
func open(h head) (int64, tlog.Hash) {
	verifier, err := note.NewVerifier(h.Vkey)
	must(err, "log key")
	n, err := note.Open([]byte(h.Checkpoint), note.VerifierList(verifier))
	must(err, "note")
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		fail("checkpoint %q", n.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err, "size")
	root, err := tlog.ParseHash(lines[2])
	must(err, "root")
	altered := strings.Replace(h.Checkpoint, lines[1], strconv.FormatInt(size+1, 10), 1)
	if _, err := note.Open([]byte(altered), note.VerifierList(verifier)); err == nil {
		fail("a head of another size is taken")
	}
	return size, root
}

func hashes(list []string) []tlog.Hash {
	out := make([]tlog.Hash, len(list))
	for i, text := range list {
		b, err := hex.DecodeString(text)
		must(err, "hash")
		copy(out[i][:], b)
	}
	return out
}

// RFC 8785 for what records hold: texts, whole numbers, objects, lists.
func canonical(raw json.RawMessage) []byte {
	var v interface{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	must(d.Decode(&v), "record")
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	must(e.Encode(v), "record")
	return bytes.TrimRight(out.Bytes(), "\n")
}

func leaf(nonce string, record []byte) tlog.Hash {
	n, err := hex.DecodeString(nonce)
	must(err, "nonce")
	data := sha256.Sum256(append(append([]byte("neargpu-log-v1\n"), n...), record...))
	return tlog.RecordHash(data[:])
}

func main() {
	var in input
	must(json.NewDecoder(os.Stdin).Decode(&in), "input")
	for _, e := range in.Bundle.Entries {
		size, root := open(in.Bundle.Logs[e.Log])
		record := canonical(e.Record)
		must(tlog.CheckRecord(hashes(e.Proof), size, root, e.Index, leaf(e.Nonce, record)), "inclusion")
		record[len(record)/2] ^= 1
		if tlog.CheckRecord(hashes(e.Proof), size, root, e.Index, leaf(e.Nonce, record)) == nil {
			fail("an altered record is taken")
		}
	}
	oldSize, oldRoot := open(in.Old)
	newSize, newRoot := open(in.New)
	proof := hashes(in.New.Consistency)
	must(tlog.CheckTree(proof, newSize, newRoot, oldSize, oldRoot), "consistency")
	oldRoot[0] ^= 1
	if tlog.CheckTree(proof, newSize, newRoot, oldSize, oldRoot) == nil {
		fail("another history is taken")
	}
	for _, w := range in.New.Witnessed {
		_, err := note.Open([]byte(w.Checkpoint), note.VerifierList(parseWitness(w.Vkey)))
		must(err, "cosignature")
	}
	fmt.Printf("%d records, %d to %d, %d cosignatures\n", len(in.Bundle.Entries), oldSize, newSize, len(in.New.Witnessed))
}
