// A GCS server in memory, on a free port of this machine, which it prints.
//
// fake-gcs-server speaks the JSON interface, by which gcsfs and MLflow write. deltalake writes by the XML interface: here such a
// PUT becomes an upload of the other, with its condition (x-goog-if-generation-match) and with what GCS answers, and a listing
// begins where it is asked to (start-after). Writes go one after the other, so that of two that may only make an object one
// does. It ends with its standard input.
package main

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	host := listener.Addr().String()
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, Scheme: "http", PublicHost: host, ExternalURL: "http://" + host, Writer: io.Discard,
	})
	if err != nil {
		panic(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("http://" + host)
	panic(http.Serve(listener, conditional(server.HTTPHandler())))
}

func conditional(next http.Handler) http.Handler {
	var turn sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			if after := r.URL.Query().Get("start-after"); after != "" {
				list(next, w, r, after)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		turn.Lock()
		defer turn.Unlock()
		bucket, object, found := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		ofJSON := bucket == "storage" || bucket == "upload" || bucket == "batch" || bucket == "_internal"
		if r.Method == http.MethodPut && found && !ofJSON {
			put(next, w, r, bucket, object)
			return
		}
		next.ServeHTTP(w, r)
	})
}

var (
	contents = regexp.MustCompile(`(?s)<Contents>.*?</Contents>`)
	key      = regexp.MustCompile(`<Key>(.*?)</Key>`)
)

func list(next http.Handler, w http.ResponseWriter, r *http.Request, after string) {
	answer := httptest.NewRecorder()
	next.ServeHTTP(answer, r)
	w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
	w.WriteHeader(answer.Code)
	_, _ = io.WriteString(w, contents.ReplaceAllStringFunc(answer.Body.String(), func(one string) string {
		if found := key.FindStringSubmatch(one); found != nil && html.UnescapeString(found[1]) <= after {
			return ""
		}
		return one
	}))
}

func put(next http.Handler, w http.ResponseWriter, r *http.Request, bucket, object string) {
	if r.URL.RawQuery != "" || r.Header.Get("x-goog-copy-source") != "" {
		http.Error(w, "neither parts nor copies by the XML interface", http.StatusNotImplemented)
		return
	}
	query := url.Values{"uploadType": {"media"}, "name": {object}}
	if generation := r.Header.Get("x-goog-if-generation-match"); generation != "" {
		query.Set("ifGenerationMatch", generation)
	}
	upload := httptest.NewRequest(http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o?"+query.Encode(), r.Body)
	upload.Host = r.Host
	upload.Header.Set("Content-Type", "application/octet-stream")
	answer := httptest.NewRecorder()
	next.ServeHTTP(answer, upload)
	var made struct{ Etag, Generation string }
	if answer.Code == http.StatusOK && json.Unmarshal(answer.Body.Bytes(), &made) == nil {
		w.Header().Set("ETag", made.Etag)
		w.Header().Set("x-goog-generation", made.Generation)
	}
	w.WriteHeader(answer.Code)
}
