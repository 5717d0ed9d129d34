package playback

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// surveyMPD reads an MPD. A Representation's URLs go by the BaseURLs of all that
// it stands in (ISO/IEC 23009-1, section 5.6), of each of which the first decides:
// the others are alternatives. Text and images are no reason to count a playback.
func (t tokener) surveyMPD(mpd []byte) (s Survey) {
	named, told := t.look(), false
	var levels [len(mpdLevels)]mpdLevel
	levels[0] = mpdLevel{base: named.home, timescale: 1}
	deep := 0 // the level that is read
	leave := func(level int) {
		if deep == len(mpdLevels)-1 {
			levels[deep].judge(&named)
		}
		deep = max(level-1, 0)
	}
	for tag := range bytes.SplitSeq(plainText(mpd), []byte("<")) {
		if told && named.settled() {
			break
		}
		tag, ends := bytes.CutPrefix(tag, []byte("/"))
		name := elementName(tag)
		here := &levels[deep]
		switch level := slices.Index(mpdLevels[:], string(name)); {
		case ends && level > 0 && level <= deep:
			leave(level)
			continue
		case ends:
			continue
		case level > 0:
			if level <= deep {
				leave(level)
			}
			levels[level] = levels[deep]
			deep, here = level, &levels[level]
			here.based = false
			here.aside = here.aside || isAside(attribute(tag, "contentType")) || isAside(attribute(tag, "mimeType"))
			if end := bytes.IndexByte(tag, '>'); end > 0 && tag[end-1] == '/' {
				leave(level)
			}
			continue
		}
		switch string(name) {
		case "MPD":
			s.Segment = isoDuration(attribute(tag, "maxSegmentDuration"))
			told = s.Segment > 0
			if s.Live = string(attribute(tag, "type")) == "dynamic"; s.Live {
				s.Period = isoDuration(attribute(tag, "minimumUpdatePeriod"))
			}
		case "BaseURL":
			if m := dashText.FindSubmatch(tag); m != nil && !here.based {
				here.base, here.based = t.follow(here.base, unescapeXML(string(m[2]))), true
			}
		case "SegmentTemplate", "SegmentList", "SegmentBase":
			if media := attribute(tag, "media"); media != nil {
				here.media = unescapeXML(string(media))
			} else if string(name) != "SegmentTemplate" {
				here.media = ""
			}
			if n := number64(attribute(tag, "timescale")); n > 0 {
				here.timescale = n
			}
			if !told {
				s.Segment = max(s.Segment, inSeconds(number64(attribute(tag, "duration"))/here.timescale))
			}
		case "SegmentURL":
			if here.media == "" {
				here.media = unescapeXML(string(attribute(tag, "media")))
			}
		case "S":
			if !told {
				s.Segment = max(s.Segment, inSeconds(number64(attribute(tag, "d"))/here.timescale))
			}
		}
	}
	leave(0)
	s.Elsewhere = named.elsewhere()
	return s
}

var mpdLevels = [...]string{"MPD", "Period", "AdaptationSet", "Representation"}

// mpdLevel is what one of the elements of mpdLevels hands down to those in it.
type mpdLevel struct {
	base      address
	based     bool   // by a BaseURL of its own
	media     string // a template, or the first segment; "" if the base is the media
	timescale float64
	aside     bool // text or images
}

// judge looks at the media of a Representation, if it names any.
func (l mpdLevel) judge(named *look) {
	switch {
	case l.aside || named.settled():
	case l.media != "":
		named.address(named.follow(l.base, l.media))
	case l.base != named.home && !strings.HasSuffix(l.base.path, "/"):
		named.address(l.base)
	}
}

// isAside reports whether a content type or MIME type is of text or images.
func isAside(what []byte) bool {
	what, _, _ = bytes.Cut(what, []byte("/"))
	return string(what) == "text" || string(what) == "image"
}

// elementName is the name of an element, without a namespace, that a tag begins
// without its <.
func elementName(tag []byte) []byte {
	name := tag[:max(0, bytes.IndexAny(tag, "/> \t\r\n"))]
	return name[bytes.IndexByte(name, ':')+1:]
}

// attribute is the value of a tag's attribute as it is written, nil if it has none.
func attribute(tag []byte, name string) []byte {
	for {
		key, rest, _ := bytes.Cut(tag, []byte("="))
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if len(rest) == 0 || rest[0] != '"' && rest[0] != '\'' || bytes.IndexByte(key, '>') >= 0 {
			return nil
		}
		value, behind, closed := bytes.Cut(rest[1:], rest[:1])
		if !closed {
			return nil
		}
		key = bytes.TrimRight(key, " \t\r\n")
		if string(key[bytes.LastIndexAny(key, " \t\r\n")+1:]) == name {
			return value
		}
		tag = behind
	}
}

func number64(s []byte) float64 {
	n, _ := strconv.ParseFloat(string(s), 64)
	return n
}

// isoDuration reads a duration of ISO 8601, as far as XML Schema has it; what is
// none is 0.
func isoDuration(s []byte) time.Duration {
	m := iso8601.FindSubmatch(bytes.TrimSpace(s))
	if m == nil {
		return 0
	}
	sum := 0.0
	for i, unit := range []float64{365 * 86400, 30 * 86400, 86400, 3600, 60, 1} {
		sum += unit * number64(m[i+1])
	}
	return inSeconds(sum)
}

var iso8601 = regexp.MustCompile(`^P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d*)?)S)?)?$`)
