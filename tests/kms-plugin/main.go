// A KMS v2 plugin for tests: Kubernetes' own gRPC service (k8s.io/kms/pkg/service) around AES-256-GCM keys in files.
//
// It does what the file that -control names says, which it reads again for each request, so that a test can turn its key or let it misbehave at any
// time. It is for tests only: a real plugin keeps its keys in a key service.
package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"
)

// control is the content of the control file.
type control struct {
	// Key is the id of the key that encrypts; its bytes are in the file of this name in -keys, and so are those of earlier ones.
	Key string `json:"key"`
	// DelayMilliseconds is how long each answer takes.
	DelayMilliseconds int `json:"delay_milliseconds"`
	// Errors is the gRPC code to answer with, by call ("Status", "Encrypt", "Decrypt").
	Errors map[string]uint32 `json:"errors"`

	// What Status says where it is not the truth.
	Version     *string `json:"version"`
	Healthz     *string `json:"healthz"`
	StatusKeyID *string `json:"status_key_id"`

	// What Encrypt says where it is not the truth.
	EncryptKeyID *string `json:"encrypt_key_id"`
	// CiphertextLength bytes are answered instead of the ciphertext.
	CiphertextLength *int `json:"ciphertext_length"`
	// Annotations are lengths of values by name. They are checked to come back with Decrypt.
	Annotations map[string]int `json:"annotations"`

	// PlaintextLength bytes are answered by Decrypt instead of the plaintext.
	PlaintextLength *int `json:"plaintext_length"`
}

type plugin struct {
	controlFile, keys string
}

func (p *plugin) Status(ctx context.Context) (*service.StatusResponse, error) {
	c, err := p.begin(ctx, "Status")
	if err != nil {
		return nil, err
	}
	return &service.StatusResponse{
		Version: or(c.Version, "v2"),
		Healthz: or(c.Healthz, "ok"),
		KeyID:   or(c.StatusKeyID, c.Key),
	}, nil
}

func (p *plugin) Encrypt(ctx context.Context, uid string, plaintext []byte) (*service.EncryptResponse, error) {
	c, err := p.begin(ctx, "Encrypt")
	if err != nil {
		return nil, err
	}
	if uid == "" {
		return nil, errors.New("a request has no uid")
	}
	aead, err := p.aead(c.Key)
	if err != nil {
		return nil, err
	}
	annotations := map[string][]byte{}
	for name, length := range c.Annotations {
		annotations[name] = bytes.Repeat([]byte{'a'}, length)
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	ciphertext := aead.Seal(nonce, nonce, plaintext, bound(c.Key, annotations))
	if c.CiphertextLength != nil {
		ciphertext = make([]byte, *c.CiphertextLength)
	}
	return &service.EncryptResponse{Ciphertext: ciphertext, KeyID: or(c.EncryptKeyID, c.Key), Annotations: annotations}, nil
}

func (p *plugin) Decrypt(ctx context.Context, uid string, request *service.DecryptRequest) ([]byte, error) {
	c, err := p.begin(ctx, "Decrypt")
	if err != nil {
		return nil, err
	}
	if uid == "" {
		return nil, errors.New("a request has no uid")
	}
	if c.PlaintextLength != nil {
		return make([]byte, *c.PlaintextLength), nil
	}
	aead, err := p.aead(request.KeyID)
	if err != nil {
		return nil, err
	}
	if len(request.Ciphertext) < aead.NonceSize() {
		return nil, errors.New("the ciphertext is too short")
	}
	nonce, sealed := request.Ciphertext[:aead.NonceSize()], request.Ciphertext[aead.NonceSize():]
	return aead.Open(nil, nonce, sealed, bound(request.KeyID, request.Annotations))
}

// begin reads the control file, and does what it says of every call.
func (p *plugin) begin(ctx context.Context, call string) (*control, error) {
	content, err := os.ReadFile(p.controlFile)
	if err != nil {
		return nil, err
	}
	c := &control{}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(c); err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(c.DelayMilliseconds) * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if code, ok := c.Errors[call]; ok {
		return nil, status.Error(codes.Code(code), "as the control file says")
	}
	return c, nil
}

// aead is the key of an id. Base, because an id comes from the request.
func (p *plugin) aead(keyID string) (cipher.AEAD, error) {
	key, err := os.ReadFile(filepath.Join(p.keys, filepath.Base(keyID)))
	if err != nil {
		return nil, errors.New("there is no such key")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// bound is what a ciphertext belongs to: a key id or annotations that do not come back as they were make it useless.
func bound(keyID string, annotations map[string][]byte) []byte {
	// Maps are written in the order of their keys. Texts, because nothing and an empty value are the same on the wire, and not in JSON.
	texts := map[string]string{}
	for name, value := range annotations {
		texts[name] = string(value)
	}
	content, err := json.Marshal([]any{keyID, texts})
	if err != nil {
		panic(err)
	}
	return content
}

func or(said *string, truth string) string {
	if said != nil {
		return *said
	}
	return truth
}

func main() {
	socket := flag.String("socket", "", "the unix socket to listen on")
	p := &plugin{}
	flag.StringVar(&p.controlFile, "control", "", "the file that says how to behave")
	flag.StringVar(&p.keys, "keys", "", "the directory of keys of 32 bytes, named by their ids")
	flag.Parse()
	// It ends with the test that started it, however that ends: its standard input is a pipe from there.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(service.NewGRPCService(*socket, 10*time.Second, p).ListenAndServe())
}
