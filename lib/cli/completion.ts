import { Argument, type Command, type Option } from "commander"
import { addCommand, does } from "./command"

// omelette's scripts ask the program at each Tab, complete words only and no file names, which is what nearly all arguments
// are, and in bash need functions of the package bash-completion. These are made once from the tree of commands instead.

/** `completion`: what makes a shell complete the command line. */
export function addCompletion(program: Command): void {
  const completion = addCommand(program, "completion", {
    summary: "print what makes a shell complete commands, options and files",
    examples: [
      ["completion bash", 'for ~/.bashrc: eval "$(syncline completion bash)"'],
      ["completion zsh", 'for ~/.zshrc, after compinit: eval "$(syncline completion zsh)"'],
      ["completion fish", "for ~/.config/fish/completions/syncline.fish"],
    ],
  }).addArgument(new Argument("<shell>", "the shell").choices(Object.keys(SHELLS)))
  does(completion, (output, _options: object, shell: keyof typeof SHELLS) => {
    const script = SHELLS[shell](commandsOf(program))
    return output.json ? output.printJSON({ shell, script }) : output.write(script)
  })
}

/** A command as a shell has to know it. */
interface Known {
  readonly name: string
  readonly summary: string
  readonly options: readonly Option[]
  /** What its argument can be; empty: files, or anything. */
  readonly words: readonly string[]
}

function commandsOf(program: Command): Known[] {
  const help = program.createHelp()
  const commands = help.visibleCommands(program)
  return commands.map((command) => ({
    name: command.name(),
    summary: command.summary() || command.description(),
    options: help.visibleOptions(command).filter(({ long }) => long !== undefined),
    words:
      command.name() === "help"
        ? commands.map((each) => each.name())
        : command.registeredArguments.flatMap(({ argChoices = [] }) => argChoices),
  }))
}

const SHELLS = { bash, zsh, fish }

function bash(commands: readonly Known[]): string {
  const cases = commands.map(({ name, options, words }) => {
    const flags = options.map(({ long }) => long).join(" ")
    return `    ${name}) options="${flags}" words="${words.join(" ")}" ;;`
  })
  return `# Completion of syncline for bash; made by: syncline completion bash
_syncline() {
  local current=\${COMP_WORDS[COMP_CWORD]} options="--help --version" words="${commands.map(({ name }) => name).join(" ")}"
  if ((COMP_CWORD > 1)); then
    case \${COMP_WORDS[1]} in
${cases.join("\n").replaceAll(/^/gm, "  ")}
      *) options="" words="" ;;
    esac
  fi
  if [[ $current == -* ]]; then words=$options; fi
  # Where nothing is found bash completes the names of files.
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -o bashdefault -F _syncline syncline
`
}

function zsh(commands: readonly Known[]): string {
  const cases = commands.map(({ name, options, words }) => {
    const flags = options.map(({ long, description, required, variadic, parseArg }) => {
      const value = required ? ":value:_files" : ""
      const repeated = variadic || (required && parseArg !== undefined) ? "'*'" : ""
      return `${repeated}${quoted(`${long}[${description.replaceAll(/[[\]\\]/g, "\\$&")}]${value}`)}`
    })
    const rest = words.length === 0 ? "'*:file:_files'" : quoted(`*:word:(${words.join(" ")})`)
    return `    ${name}) _arguments ${[...flags, rest].join(" ")} ;;`
  })
  return `#compdef syncline
# Completion of syncline for zsh; made by: syncline completion zsh
_syncline() {
  if ((CURRENT == 2)); then
    local -a commands=(
${commands.map(({ name, summary }) => `      ${quoted(`${name}:${summary}`)}`).join("\n")}
    )
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  ((CURRENT--))
  case $command in
${cases.join("\n")}
  esac
}
compdef _syncline syncline
`
}

function fish(commands: readonly Known[]): string {
  const lines = commands.flatMap(({ name, summary, options, words }) => {
    const within = `complete -c syncline -n '__fish_seen_subcommand_from ${name}'`
    return [
      `complete -c syncline -n __fish_use_subcommand -f -a ${name} -d ${quoted(summary)}`,
      ...options.map(({ long = "", description, required }) => {
        return `${within} -l ${long.slice(2)}${required ? " -r" : ""} -d ${quoted(description)}`
      }),
      ...(words.length === 0 ? [] : [`${within} -f -a ${quoted(words.join(" "))}`]),
    ]
  })
  return ["# Completion of syncline for fish; made by: syncline completion fish", ...lines, ""].join("\n")
}

/** For zsh, fish and any POSIX shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}
