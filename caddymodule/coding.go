package caddymodule

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/streamguard/streamguard/playback"
)

// codings are the content codings (RFC 9110, section 8.4.1) that the gate can
// read and write, the smallest first.
var codings = []string{"zstd", "gzip"}

// codingOf is the content coding of a response, "" of one that has none, and
// whether the gate can read it.
func codingOf(h http.Header) (coding string, known bool) {
	switch coding = strings.ToLower(strings.Join(h["Content-Encoding"], ",")); coding {
	case "", "identity":
		return "", true
	case "x-gzip":
		return "gzip", true
	}
	return coding, coding == "gzip" || coding == "zstd"
}

var (
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	gzipWriters = sync.Pool{New: func() any {
		z, _ := gzip.NewWriterLevel(nil, 3) // of playlists as small as at higher levels, in half the time
		return z
	}}

	zstdReader = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(playback.MaxManifest))
	})
	zstdWriter = sync.OnceValues(func() (*zstd.Encoder, error) { return zstd.NewWriter(nil) })
)

// unpack appends the text of a body in this coding to a buffer, unless it is
// larger than a manifest may be.
func unpack(text *bytes.Buffer, body []byte, coding string) error {
	switch coding {
	case "gzip":
		z := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(z)
		if err := z.Reset(bytes.NewReader(body)); err != nil {
			return err
		}
		if _, err := text.ReadFrom(io.LimitReader(z, playback.MaxManifest+1)); err != nil {
			return err
		}
		if text.Len() > playback.MaxManifest {
			return errLarge
		}
		return nil
	case "zstd":
		z, err := zstdReader()
		if err != nil {
			return err
		}
		plain, err := z.DecodeAll(body, text.AvailableBuffer())
		text.Write(plain)
		return err
	}
	text.Write(body)
	return nil
}

// pack is a text in this coding.
func pack(text []byte, coding string) []byte {
	switch coding {
	case "gzip":
		var packed bytes.Buffer
		z := gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(z)
		z.Reset(&packed)
		z.Write(text) // into memory: no error
		z.Close()
		return packed.Bytes()
	case "zstd":
		if z, err := zstdWriter(); err == nil { // it has no options that could be wrong
			return z.EncodeAll(text, nil)
		}
	}
	return text
}
