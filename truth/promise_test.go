package truth

import "fmt"

// shares are how many of the starts with room are admitted, at least. Where every
// ending tells, that is of those whose room is 6 s old: it is noticed by then.
var shares = map[string]float64{textbook: 0.95, telling: 0.95, mixed: 0.75}

// breaks is what a row breaks of what is promised of every population. After a loss
// of Redis' data starts take slots until those who play have theirs back.
func (r *row) breaks(lost bool) (broken []string) {
	never := func(n float64, what string) {
		if n > 0 {
			broken = append(broken, fmt.Sprintf("%v %s", n, what))
		}
	}
	never(float64(r.Within), "refused though fewer slots than the limit can have been taken")
	never(float64(r.Steady), "interrupted who asks every 5 s or keeps a connection")
	never(float64(r.KeptTaken), "lost the slot in a pause, who had kept a connection")
	if !lost {
		never(r.Beyond, "seconds beyond the limit")
	}
	return broken
}

// wants is what a group breaks of what is promised of many starts.
func (r *row) wants(group string) (broken []string) {
	of := r.Room
	if group != mixed {
		of -= r.Fresh
	}
	if share := shares[group]; float64(r.Admitted) < share*float64(of) {
		broken = append(broken, fmt.Sprintf("%d of %d starts with room were admitted, less than %.0f %%", r.Admitted, of, 100*share))
	}
	return broken
}
