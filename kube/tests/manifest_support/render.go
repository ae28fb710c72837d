// Renders Helm templates: Go's own engine with sprig's functions, and Helm's toYaml. What Helm adds beyond that, these
// templates do not use. A list of {Template, Values} in JSON on stdin, the list of texts on stdout.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

type job struct{ Template, Values string }

func main() {
	var jobs []job
	check(json.NewDecoder(os.Stdin).Decode(&jobs))
	texts := []string{}
	for _, job := range jobs {
		texts = append(texts, render(job))
	}
	check(json.NewEncoder(os.Stdout).Encode(texts))
}

func render(job job) string {
	functions := sprig.TxtFuncMap()
	functions["toYaml"] = func(value interface{}) (string, error) {
		text, err := yaml.Marshal(value)
		return strings.TrimSuffix(string(text), "\n"), err
	}
	values := map[string]interface{}{}
	check(yaml.Unmarshal([]byte(job.Values), &values))
	parsed, err := template.New("pod.yaml").Funcs(functions).Parse(job.Template)
	check(err)
	var text bytes.Buffer
	check(parsed.Execute(&text, map[string]interface{}{"Values": values}))
	return text.String()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
