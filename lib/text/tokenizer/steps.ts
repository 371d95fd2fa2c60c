// The steps that a text goes through before its words become ids.
import type { Piece } from './piece.ts';

export type Normalizer = (piece: Piece) => Piece;

/** Emits the pieces that a piece is cut into; none of them is empty. */
export type PreTokenizer = (piece: Piece, emit: (piece: Piece) => void) => void;
