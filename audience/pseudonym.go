package audience

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"
)

// Pseudonym is a user as logs have it that are not to name him: the first 16 digits of
// the SHA-256.
func Pseudonym(user string) string {
	sum := sha256.Sum256([]byte(user))
	return hex.EncodeToString(sum[:8])
}

// leastName is how long a user's name is, in bytes, that is looked for within a text.
const leastName = 3

// Pseudonymous is the report without names of users. Paths, such as those that are not
// counted, stay as they are.
func (r Report) Pseudonymous() Report {
	r.Top = append([]TopUser(nil), r.Top...)
	for i := range r.Top {
		r.Top[i].User = Pseudonym(r.Top[i].User)
	}
	for _, list := range []*[]Example{&r.SelfRefusalExamples, &r.RenamedExamples} {
		hidden := make([]Example, len(*list))
		for i, e := range *list {
			hide := func(s string) string {
				if len(e.User) < leastName {
					return s
				}
				pseudonym := Pseudonym(e.User)
				return strings.NewReplacer(e.User, pseudonym, url.PathEscape(e.User), pseudonym, url.QueryEscape(e.User), pseudonym).Replace(s)
			}
			hidden[i] = Example{User: Pseudonym(e.User), Stream: hide(e.Stream)}
			for _, line := range e.Lines {
				hidden[i].Lines = append(hidden[i].Lines, hide(line))
			}
		}
		*list = hidden
	}
	if r.Lines != nil { // of a line that cannot be read nobody knows where its user stands
		lines := *r.Lines
		lines.BrokenAt, _, _ = strings.Cut(lines.BrokenAt, `: "`)
		r.Lines = &lines
	}
	return r
}
