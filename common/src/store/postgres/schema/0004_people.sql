-- A picture: an attachment's id, or an address on the web.
ALTER TABLE users ADD COLUMN avatar text;

-- The words of people's names, as the program writes them: lower case, without accents. The key is the search: what begins with the typed
-- word is one range of it, read in order and only as far as is asked for, be it one letter or ten. A trigram index would have to look
-- through everybody for one or two letters, which is how every search begins.
CREATE TABLE user_words (
    app     uuid             NOT NULL,
    word    text COLLATE "C" NOT NULL,
    user_id uuid             NOT NULL,
    PRIMARY KEY (app, word, user_id)
);

-- Whether somebody who was found by one word has the others too; and a new name takes the place of the old one's words.
CREATE INDEX user_words_by_user ON user_words (app, user_id, word);
