# apt-source.sh - source packages through apt without changing the machine: sourced by tools/fetch-lwip and tests/suites/fetch.
#
# apt works in a scratch folder with source entries derived from the machine's own, so neither /etc/apt nor the system's package
# lists change, and root is not needed.

# source_entries DIR [SUITE]: the machine's own package sources as source-package entries, in DIR; with SUITE that one
# release instead of the machine's.
source_entries() {
	local dir=$1 suite=${2:-} file
	rm -rf "$dir"
	mkdir -p "$dir"
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -f "$file" ] || continue
		sed -nE 's/^[[:space:]]*deb(-src)?[[:space:]]/deb-src /p' "$file" |
			if [ -n "$suite" ]; then
				# "deb-src [options] URI SUITE ..." of the plain archive (never -security or -updates)
				sed -nE "s/^(deb-src (\[[^]]*\] )?[^ ]+\/debian\/?) +[a-z]+ .*/\1 $suite main/p"
			else
				cat
			fi | sort -u >"$dir/$(basename "$file" .list).list"
	done
	for file in /etc/apt/sources.list.d/*.sources; do
		[ -f "$file" ] || continue
		if [ -z "$suite" ]; then
			sed -E 's/^Types:.*/Types: deb-src/I' "$file"
		else
			# paragraphs of the plain archive only
			awk -v RS= -v ORS='\n\n' 'tolower($0) ~ /uris:[^\n]*\/debian\/?([ \n]|$)/' "$file" |
				sed -E "s/^Types:.*/Types: deb-src/I; s/^Suites:.*/Suites: $suite/I; s/^Components:.*/Components: main/I"
		fi >"$dir/$(basename "$file")"
	done
}

# apt_source DIR SUITE PACKAGE: downloads the files of a source package into DIR; SUITE may be empty. True when its .dsc is there;
# what apt said is in DIR/log. One unreachable third-party source does not matter.
apt_source() {
	local dir=$1 opts
	opts=(
		-o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$dir/sources"
		-o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o "APT::Get::List-Cleanup=0"
		-o "Debug::NoLocking=1" -o "Acquire::Languages=none"
	)
	[ "$(id -u)" != 0 ] || opts+=(-o "APT::Sandbox::User=root")
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	source_entries "$dir/sources" "$2"
	apt-get "${opts[@]}" -qq update >"$dir/log" 2>&1 || true
	(cd "$dir" && apt-get "${opts[@]}" -qq source --download-only --only-source "$3") >>"$dir/log" 2>&1 || true
	ls "$dir/$3"_*.dsc >/dev/null 2>&1
}
