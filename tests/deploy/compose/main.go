// Reads a compose file with the loader that `docker compose` uses, and prints it as JSON.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithOsEnv, cli.WithProfiles([]string{"*"}))
	if err == nil {
		project, loading := cli.ProjectFromOptions(context.Background(), options)
		if err = loading; err == nil {
			content, marshalling := project.MarshalJSON()
			if err = marshalling; err == nil {
				fmt.Println(string(content))
				return
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
