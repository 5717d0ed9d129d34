package guard

import "math"

// Unlimited is a limit that refuses nobody.
const Unlimited = math.MaxInt32
