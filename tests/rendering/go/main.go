// Fills in templates as Ollama does (its template.go): JSON on standard input, JSON out.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct{ Role, Content string }

type Case struct {
	Template string
	Messages []*Message
}

func render(c Case) string {
	var system []string
	for _, m := range c.Messages {
		if m.Role == "system" {
			system = append(system, m.Content)
		}
	}
	var b bytes.Buffer
	values := map[string]any{
		"System": strings.Join(system, "\n\n"), "Messages": c.Messages, "Response": "",
	}
	t := template.Must(template.New("").Option("missingkey=zero").Parse(c.Template))
	if err := t.Execute(&b, values); err != nil {
		panic(err)
	}
	return b.String()
}

func main() {
	var cases []Case
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	texts := []string{}
	for _, c := range cases {
		texts = append(texts, render(c))
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	if err := out.Encode(texts); err != nil {
		panic(err)
	}
}
