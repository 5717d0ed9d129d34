package truth

import "fmt"

// shares are how many of the starts with room are admitted, at least.
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

// wants is what of the promises about many starts and pauses a row does not keep.
func (r *row) wants(share float64) (broken []string) {
	if r.share() < share {
		broken = append(broken, fmt.Sprintf("%.1f %% of the starts with room admitted, not %.0f", 100*r.share(), 100*share))
	}
	if r.ClosedTaken > (r.Closed+99)/100 {
		broken = append(broken, fmt.Sprintf("%d of %d lost the slot in a pause, more than 1 %%", r.ClosedTaken, r.Closed))
	}
	return broken
}
