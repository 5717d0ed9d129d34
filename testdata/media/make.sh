#!/usr/bin/env bash
# Makes the sample media beside this script; the committed files are its output
# with Debian 12's ffmpeg 5.1. Running it again gives the same bytes, so
# "git status" stays clean. Another ffmpeg or x264 may give other bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf cmaf ts byterange
mkdir -p cmaf/{s0,s1,s2,subs} ts/{90,180} byterange

# bitexact keeps version strings and random ids out of the files.
exact=(-fflags +bitexact -flags:v +bitexact -flags:a +bitexact -map_metadata -1)
ff() { ffmpeg -nostdin -v error -y "$@"; }

# --- Encode once: every package below only copies these streams. -------------
# A fixed 40-frame GOP at 10 fps makes 4 s segments; one thread, because x264's
# output depends on the number of threads. CRF 50 looks poor and keeps it small.
for size in 160x90 320x180; do
  ff -f lavfi -i "testsrc2=size=$size:rate=10:duration=60" \
    -c:v libx264 -preset veryslow -crf 50 -g 40 -keyint_min 40 -sc_threshold 0 \
    -bf 0 -pix_fmt yuv420p -threads 1 "${exact[@]}" "$work/v${size#*x}.mp4"
done
# 32 kHz puts exactly 125 AAC frames in 4 s, so there are as many audio segments
# as video segments. 59.968 s leaves room for the encoder's one priming frame,
# which would otherwise spill into a 16th segment. The AAC encoder computes in
# floats, so -cpuflags 0 keeps the CPU's own vector instructions out of the result.
ff -cpuflags 0 -f lavfi -i sine=frequency=440:sample_rate=32000:duration=59.968 \
  -c:a aac -b:a 12k -ac 1 -threads 1 "${exact[@]}" "$work/audio.mp4"

# --- cmaf/: one set of segments, listed by an HLS and a DASH manifest. -------
ff -i "$work/v90.mp4" -i "$work/v180.mp4" -i "$work/audio.mp4" \
  -map 0:v -map 1:v -map 2:a -c copy "${exact[@]}" \
  -f dash -seg_duration 4 -hls_playlist 1 \
  -adaptation_sets 'id=0,streams=v id=1,streams=a' \
  -init_seg_name 's$RepresentationID$/init.mp4' \
  -media_seg_name 's$RepresentationID$/$Number%03d$.m4s' cmaf/manifest.mpd

# ffmpeg stamps the time of the run on every segment, which would change the
# bytes each time.
sed -i -e '/^#EXT-X-PROGRAM-DATE-TIME/d' \
  -e '/^#EXT-X-MEDIA-SEQUENCE/a #EXT-X-PLAYLIST-TYPE:VOD' cmaf/media_*.m3u8

# Subtitles: one WebVTT file, a cue every 4 s, shared by both manifests. The last
# cue is for ffmpeg's DASH reader, which ends the whole title when its shortest
# stream ends, and takes a text stream to end where its last cue starts.
{
  printf 'WEBVTT\n'
  for ((t = 0; t < 60; t += 4)); do
    printf '\n00:00:%02d.000 --> 00:00:%02d.500\n%d seconds\n' "$t" $((t + 3)) "$t"
  done
  printf '\n00:00:59.950 --> 00:01:00.000\nend\n'
} > cmaf/subs/en.vtt
cat > cmaf/subs/en.m3u8 <<'M3U8'
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-TARGETDURATION:60
#EXT-X-MEDIA-SEQUENCE:1
#EXT-X-PLAYLIST-TYPE:VOD
#EXTINF:60.000000,
en.vtt
#EXT-X-ENDLIST
M3U8

# MPD: add the subtitles; drop empty elements, schema hints (absolute URLs that
# nobody fetches) and bitstreamSwitching, which is untrue: each rendition has
# its own init segment.
cat > "$work/text.xml" <<'XML'
		<AdaptationSet id="2" contentType="text" mimeType="text/vtt" lang="en">
			<Role schemeIdUri="urn:mpeg:dash:role:2011" value="subtitle" />
			<Representation id="3" bandwidth="100">
				<BaseURL>subs/en.vtt</BaseURL>
			</Representation>
		</AdaptationSet>
XML
sed -i -e 's/ xmlns:xsi="[^"]*"//' -e '/xmlns:xlink=/d' -e '/xsi:schemaLocation=/d' \
  -e '/ProgramInformation>/d' -e '/ServiceDescription/d' \
  -e 's/ bitstreamSwitching="true"//' cmaf/manifest.mpd
# "r" puts the text after the last </AdaptationSet>, the audio's (id 1).
sed -i -e '/<AdaptationSet id="1"/,/<\/AdaptationSet>/{' \
  -e "/<\/AdaptationSet>/r $work/text.xml" -e '}' cmaf/manifest.mpd

# ffmpeg's own masters lack the subtitles, some CODECS, and give the average as
# BANDWIDTH where HLS wants the peak segment's bit rate; so write them here.
peak() { sort -n | tail -n 1 | awk '{ print $1 * 8 / 4 }'; } # of bytes per 4 s
sizes() { stat -c %s "$@"; }
codec() { sed -n "s/.*<Representation id=\"$1\".* codecs=\"\([^\"]*\)\".*/\1/p" cmaf/manifest.mpd; }
audio=$(sizes cmaf/s2/*.m4s | peak)
v90="RESOLUTION=160x90,FRAME-RATE=10.000,CODECS=\"$(codec 0),$(codec 2)\""
v180="RESOLUTION=320x180,FRAME-RATE=10.000,CODECS=\"$(codec 1),$(codec 2)\""
groups='AUDIO="audio",SUBTITLES="subs"'
cat > cmaf/master.m3u8 <<M3U8
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Tone",LANGUAGE="en",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="1",URI="media_2.m3u8"
#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="subs",NAME="English",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,URI="subs/en.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=$(($(sizes cmaf/s0/*.m4s | peak) + audio)),$v90,$groups
media_0.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=$(($(sizes cmaf/s1/*.m4s | peak) + audio)),$v180,$groups
media_1.m3u8
M3U8

# --- ts/: MPEG-TS segments, audio muxed into both renditions. ----------------
ff -i "$work/v90.mp4" -i "$work/v180.mp4" -i "$work/audio.mp4" \
  -map 0:v -map 2:a -map 1:v -map 2:a -c copy "${exact[@]}" \
  -f hls -hls_time 4 -hls_playlist_type vod -hls_flags independent_segments \
  -var_stream_map 'v:0,a:0,name:90 v:1,a:1,name:180' \
  -hls_segment_filename 'ts/%v/%03d.ts' ts/%v/index.m3u8
cat > ts/master.m3u8 <<M3U8
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-STREAM-INF:BANDWIDTH=$(sizes ts/90/*.ts | peak),$v90
90/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=$(sizes ts/180/*.ts | peak),$v180
180/index.m3u8
M3U8

# --- byterange/: one fMP4 file, its segments named by byte ranges. -----------
ff -i "$work/v90.mp4" -i "$work/audio.mp4" -map 0:v -map 1:a -c copy "${exact[@]}" \
  -f hls -hls_time 4 -hls_playlist_type vod -hls_segment_type fmp4 \
  -hls_flags single_file+independent_segments \
  -hls_segment_filename byterange/media.mp4 byterange/index.m3u8
cat > byterange/master.m3u8 <<M3U8
#EXTM3U
#EXT-X-VERSION:7
#EXT-X-STREAM-INF:BANDWIDTH=$(sed -n 's/^#EXT-X-BYTERANGE:\([0-9]*\)@.*/\1/p' byterange/index.m3u8 | peak),$v90
index.m3u8
M3U8
