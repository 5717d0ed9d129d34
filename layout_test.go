package streamguard

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/streamguard/streamguard"

// Packages stand in rooms; an import points down only.
func TestImportsPointDown(t *testing.T) {
	may := map[string][]string{
		"guard":                {},
		"guard/guardtest":      {"guard"},
		"memstore":             {"guard"},
		"redisstore":           {"guard"},
		"redisstore/redistest": {},
		"playback":             {"guard"},
		"problem":              {"guard"},
		"lease":                {"guard"},
		"connection":           {"guard"},
		"audience":             {"guard"},
		"gate":                 {"audience", "connection", "guard", "lease", "playback", "problem"},
		"replay":               {"audience", "guard", "playback"},
		"api":                  {"guard", "playback", "problem"},
		"operate":              {"audience", "connection", "guard", "lease", "playback", "problem", "gate", "api"},
		"caddymodule/block":    {},
		"caddymodule/storage":  {"audience", "connection", "guard", "lease", "memstore", "redisstore", "playback", "problem", "gate", "caddymodule/block"},
	}
	below := slices.Collect(maps.Keys(may))
	may["caddymodule"] = below
	below = append(below, "caddymodule")
	may["caddymodule/command"] = below
	below = append(below, "caddymodule/command")
	may[""] = below
	may["cmd/caddy"] = append(below, "")
	for _, line := range goList(t, "-f", "{{.ImportPath}} {{join .Deps \" \"}}", "./...") {
		path, deps, _ := strings.Cut(line, " ")
		room := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
		allowed, known := may[room]
		if !known {
			if deps != "" && strings.Contains(deps, module) {
				t.Errorf("%s is not in the layout", path)
			}
			continue
		}
		for _, dep := range strings.Fields(deps) {
			inner, ours := strings.CutPrefix(dep, module)
			switch {
			case ours && !slices.Contains(allowed, strings.TrimPrefix(inner, "/")):
				t.Errorf("%s imports %s", path, dep)
			case !strings.HasPrefix(room, "caddymodule") && room != "" && room != "cmd/caddy" && strings.HasPrefix(dep, "github.com/caddyserver/"):
				t.Errorf("%s imports %s: only caddymodule and its rooms know Caddy", path, dep)
			case room == "guard" && !ours && strings.Contains(strings.Split(dep, "/")[0], "."):
				t.Errorf("%s imports %s: it is to do with the standard library", path, dep)
			}
		}
	}
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
