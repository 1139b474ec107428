// CLIP's byte-level BPE, from the tokenizer.json of an export.

const WORDS = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;

export class Tokenizer {
  constructor(json, start, end) {
    this.vocabulary = json.model.vocab;
    this.ranks = new Map(json.model.merges.map((pair, rank) => [pair.join(" "), rank]));
    this.start = start;
    this.end = end;
    // Bytes that are not printable are written as characters from 256 on.
    const plain = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || byte > 173;
    let next = 256;
    this.characters = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(plain(byte) ? byte : next++));
  }

  // Token ids of a text, with those of its start and end.
  encode(text) {
    // Each character by itself: at the end of a word, toLowerCase would make another letter of the Greek sigma.
    const lower = Array.from(text.normalize("NFC"), (character) => character.toLowerCase()).join("");
    const words = lower.match(WORDS) ?? [];
    const parts = words.flatMap((word) => this.split(word));
    return [this.start, ...parts.map((part) => this.vocabulary[part]), this.end];
  }

  split(word) {
    const parts = Array.from(new TextEncoder().encode(word), (byte) => this.characters[byte]);
    parts[parts.length - 1] += "</w>";
    for (;;) {
      let best = Infinity;
      let at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`);
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) return parts;
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
  }
}
