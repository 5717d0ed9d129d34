package playback

import (
	"bytes"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/streamguard/streamguard/guard"
)

// MaxManifest is how many bytes a manifest has at most, before a token is written
// into it and after.
const MaxManifest = 4 << 20

// Place is where a manifest was asked for.
type Place struct {
	Path  string // escaped, with its token
	Query string
	Hosts []string // all that the gate is known by
}

// AddToken writes a path token into the URLs of a manifest that would lose it:
// absolute ones of the same host, of manifests and media, and relative ones
// that climb over it and would lead to another place besides. Other relative
// ones carry it by themselves. A list of titles (see Survey) is to lose it: its
// relative URLs are led out of it, and the others stay. Where more than
// MaxManifest bytes would come of it, AddToken returns nil.
func (k Kinds) AddToken(manifest []byte, at Place, id guard.ID) []byte {
	if edited := k.addToken(manifest, at, id); len(edited) <= MaxManifest {
		return edited
	}
	return nil
}

// addToken stops soon where too many bytes come of it.
func (k Kinds) addToken(manifest []byte, at Place, id guard.ID) []byte {
	t := k.under(at, id)
	switch {
	case isXML(manifest):
		return t.dash(manifest)
	case !isHLS(manifest) && t.surveyList(manifest).List:
		return t.leadOut(manifest)
	}
	return t.hls(manifest)
}

func (k Kinds) under(at Place, id guard.ID) tokener {
	t := k.tokener(at)
	t.token = "~" + id.String() + "/"
	return t
}

func (k Kinds) tokener(at Place) tokener {
	folders := strings.Split(strings.TrimPrefix(at.Path, "/"), "/")
	return tokener{kinds: k, at: at, folders: folders[:len(folders)-1]}
}

// tokener writes a token into the URLs of a manifest in these folders.
type tokener struct {
	kinds   Kinds
	at      Place
	token   string
	folders []string // the token among them
}

// hlsAttribute is URI, also as the end of SERVER-URI, and those of interstitials.
var hlsAttribute = regexp.MustCompile(`(X-ASSET-URI|X-ASSET-LIST|URI)="([^"]*)`)

// hls finds the URLs of a playlist (RFC 8216, section 4.1): lines of their own,
// and attributes. Where a variable leads a URL to where it would lose the token,
// what it stands for is written out.
func (t tokener) hls(playlist []byte) []byte {
	edited := make([]byte, 0, len(playlist)*9/8)
	known := make(variables)
	resolved := func(ref string, lead func(string) string) string {
		meant := known.resolve(ref)
		if led := lead(meant); led != meant && !strings.HasPrefix(meant, "{$") {
			return led
		}
		return ref
	}
	for line := range bytes.Lines(playlist) {
		if len(edited) > MaxManifest {
			break
		}
		switch url := bytes.TrimSpace(line); {
		case len(url) > 0 && url[0] != '#':
			before, after, _ := bytes.Cut(line, url)
			edited = append(edited, before...)
			edited = append(edited, resolved(string(url), t.anywhere)...)
			edited = append(edited, after...)
		case bytes.HasPrefix(url, []byte("#EXT-X-DEFINE:")):
			line = appendEdited(nil, line, hlsValue, func(_, ref string) string { return t.variable(ref) })
			known.define(string(line), t.at.Query)
			edited = append(edited, line...)
		case bytes.Contains(url, []byte(`="`)):
			edited = appendEdited(edited, line, hlsAttribute, func(in, ref string) string {
				if in == "URI" {
					return resolved(ref, t.anywhere)
				}
				return resolved(ref, t.interstitial)
			})
		default:
			edited = append(edited, line...)
		}
	}
	return edited
}

// dash finds the URLs of an MPD (ISO/IEC 23009-1, section 5.6). Relative ones go
// by a BaseURL of the whole, which is its own folder with the token as far up as
// they climb. One that has none is given it even if they do not: FFmpeg resolves
// them against what it asked for, not where it was sent.
func (t tokener) dash(mpd []byte) []byte {
	mpd = plainText(mpd)
	climbs := make(map[string]int)
	editMPD(mpd, func(in, ref string) string {
		climbs[in] = max(climbs[in], climb(ref))
		return ref
	})
	up := climbs["MPD"] + climbs["Period"] + climbs["AdaptationSet"] + climbs["Representation"] +
		max(climbs["media"], climbs["initialization"], climbs["sourceURL"], climbs["index"])
	own := t.own(up)
	mpd = editMPD(mpd, func(in, ref string) string {
		switch in {
		case "MPD", "Period", "AdaptationSet", "Representation":
			if in == "MPD" && own != "./" && isRelative(ref) && !hasToken(ref) {
				return own + ref
			}
			return t.base(ref, up)
		case "media", "initialization", "sourceURL", "index":
			return t.absolute(ref)
		}
		return t.anywhere(ref) // goes by the MPD's own URL
	})
	if len(mpd) > MaxManifest {
		return mpd
	}
	period := firstPeriod.FindSubmatchIndex(mpd)
	if _, based := climbs["MPD"]; based || period == nil { // nil: a part of one, remote or a patch
		return mpd
	}
	prefix := string(mpd[period[4]:period[5]])
	return slices.Insert(mpd, period[2], []byte("<"+prefix+"BaseURL>"+escapeXML.Replace(own)+"</"+prefix+"BaseURL>")...)
}

// plainText leaves out an MPD's comments, which may hold what looks like URLs,
// and writes its CDATA sections as any other text.
func plainText(mpd []byte) []byte {
	if !bytes.Contains(mpd, []byte("<!")) {
		return mpd
	}
	return section.ReplaceAllFunc(mpd, func(s []byte) []byte {
		text, ok := bytes.CutPrefix(s, []byte("<![CDATA["))
		if !ok {
			return nil
		}
		return []byte(escapeXML.Replace(string(text[:len(text)-len("]]>")])))
	})
}

// editXML replaces a URL that is written as XML has it.
func editXML(ref string, replace func(string) string) string {
	plain := unescapeXML(ref)
	if edited := replace(plain); edited != plain {
		return escapeXML.Replace(edited)
	}
	return ref
}

func unescapeXML(s string) string {
	if !strings.Contains(s, "&") {
		return s
	}
	return reference.ReplaceAllStringFunc(s, html.UnescapeString)
}

var (
	section       = regexp.MustCompile(`(?s)<!--.*?-->|<!\[CDATA\[.*?\]\]>`)
	reference     = regexp.MustCompile(`&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});`)
	escapeXML     = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;")
	dashText      = regexp.MustCompile(`^(?:\w+:)?(\w+)[^>]*>\s*([^<]*[^<\s])`)
	dashAttribute = regexp.MustCompile(`\s(?:\w+:)?(media|initialization|sourceURL|index|href|value)\s*=\s*["']([^"']*)`)
	firstPeriod   = regexp.MustCompile(`(?s)<(?:\w+:)?MPD[\s>].*?(<((?:\w+:)?)Period[\s/>])`)
)

// editMPD replaces the URLs of an MPD, saying in which element or attribute each
// is; of a BaseURL, whose it is.
func editMPD(mpd []byte, with func(in, ref string) string) []byte {
	replace := func(in, ref string) string {
		return editXML(ref, func(ref string) string { return with(in, ref) })
	}
	edited, level := make([]byte, 0, len(mpd)*9/8), "MPD"
	for tag := range bytes.SplitAfterSeq(mpd, []byte("<")) { // with the text behind it
		if len(edited) > MaxManifest {
			break
		}
		name := elementName(tag)
		switch string(name) {
		case "", "S": // an end, or one of very many
			edited = append(edited, tag...)
		case "BaseURL":
			edited = appendEdited(edited, tag, dashText, func(_, ref string) string { return replace(level, ref) })
		case "Location", "PatchLocation", "ContentSteering":
			edited = appendEdited(edited, tag, dashText, replace)
		case "Period", "AdaptationSet", "Representation":
			level = string(name)
			fallthrough
		default:
			edited = appendEdited(edited, tag, dashAttribute, replace)
		}
	}
	return edited
}

// appendEdited appends a text with the URLs replaced that an expression finds as
// its second group; the first is what they are in.
func appendEdited(dst, text []byte, re *regexp.Regexp, replace func(in, ref string) string) []byte {
	for m := re.FindSubmatchIndex(text); m != nil && len(dst) <= MaxManifest; m = re.FindSubmatchIndex(text) {
		dst = append(dst, text[:m[4]]...)
		dst = append(dst, replace(string(text[m[2]:m[3]]), string(text[m[4]:m[5]]))...)
		text = text[m[5]:]
	}
	return append(dst, text...)
}

// climb is how many folders up a relative URL leads at most.
func climb(ref string) (most int) {
	down := 0
	for folder := range strings.SplitSeq(ref[:pathEnd(ref)], "/") {
		switch folder {
		case "..":
			down--
			most = max(most, -down)
		case ".":
		default:
			down++
		}
	}
	return most
}

// over is how many tokens are left behind on the way so many folders up.
func (t tokener) over(up int) (tokens int) {
	for _, folder := range slices.Backward(t.folders) {
		switch {
		case up == 0:
			return tokens
		case isToken(folder):
			tokens++
		default:
			up--
		}
	}
	return tokens
}

// own is the manifest's folder with the token above what URLs reach that climb
// so many folders.
func (t tokener) own(up int) string {
	plain := slices.DeleteFunc(slices.Clone(t.folders), isToken)
	up = min(up, len(plain))
	tokens := t.over(up)
	if tokens == 0 {
		return "./"
	}
	way := append(plain[len(plain)-up:], "")
	return strings.Repeat("../", up+tokens) + t.token + strings.Join(way, "/")
}

// anywhere puts the token into any URL that would lose it.
func (t tokener) anywhere(ref string) string {
	if !isRelative(ref) || hasToken(ref) {
		return t.absolute(ref)
	}
	if tokens := t.over(climb(ref)); tokens > 0 {
		return t.put(strings.Repeat("../", tokens)+ref, 0)
	}
	return ref
}

// interstitial puts the token into the URL of an interstitial's assets, or of a
// list of them, whatever they are named unless they are said to be no part of a
// playback: they are fetched for the film's.
func (t tokener) interstitial(ref string) string {
	if path, here := t.here(ref); here && (t.kinds.Of(path) != Other || !t.kinds.Knows(path)) {
		return t.put(ref, 0)
	}
	return t.anywhere(ref)
}

// absolute puts the token into an absolute URL of a manifest or media, if it is
// the gate's.
func (t tokener) absolute(ref string) string {
	if path, here := t.here(ref); here && t.kinds.Of(path) != Other {
		return t.put(ref, 0)
	}
	return ref
}

// base puts the token into an absolute BaseURL, behind which more is to come that
// climbs so many folders.
func (t tokener) base(ref string, up int) string {
	if path, here := t.here(ref); here && strings.HasSuffix(path, "/") {
		return t.put(ref, min(up, strings.Count(path, "/")-1))
	}
	return t.absolute(ref)
}

// here returns the path of an absolute URL and whether it is of the manifest's
// host and has no token yet.
func (t tokener) here(ref string) (path string, here bool) {
	u, err := url.Parse(ref)
	switch {
	case err != nil, !strings.HasPrefix(u.Path, "/"), hasToken(ref):
		return "", false
	case u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https":
		return "", false
	}
	return u.Path, t.isOurs(u.Host)
}

// isOurs reports whether a URL's host is the gate, as it is where there is none.
func (t tokener) isOurs(host string) bool {
	return host == "" || slices.ContainsFunc(t.at.Hosts, func(ours string) bool {
		return strings.EqualFold(plainHost(host), plainHost(ours))
	})
}

// plainHost is a host without a port that goes without saying.
func plainHost(host string) string {
	return strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":80")
}

// put puts the token in front of the file name, as TokenLocation does, or so
// many folders further up.
func (t tokener) put(ref string, up int) string {
	at := strings.LastIndexByte(ref[:pathEnd(ref)], '/')
	for range up {
		at = strings.LastIndexByte(ref[:at], '/')
	}
	return ref[:at+1] + t.token + ref[at+1:]
}

func isRelative(ref string) bool {
	first, _, _ := strings.Cut(ref[:pathEnd(ref)], "/")
	return !strings.HasPrefix(ref, "/") && !strings.Contains(first, ":")
}

func hasToken(ref string) bool {
	_, _, found := CutToken("/" + ref[:pathEnd(ref)])
	return found
}

// pathEnd is where a URL's query or fragment begins.
func pathEnd(ref string) int {
	if i := strings.IndexAny(ref, "?#"); i >= 0 {
		return i
	}
	return len(ref)
}
